package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// applyFile sets what the file gives. What it reports names a line and never quotes it: it could hold a secret.
func (cmd *Command) applyFile(readFile func(string) ([]byte, error)) {
	name := cmd.byKey["config"].raw
	if name == "" {
		return
	}
	content, err := readFile(name)
	cmd.require("config", err == nil, "cannot be read: %v", err)
	members, err := parseFile(content)
	cmd.require("config", err == nil, "%s %v", name, err)
	for members.Next() {
		key := members.Key().GetToken()
		place := fmt.Sprintf("file %s, line %d", name, key.Position.Line)
		text, ok := plainText(members.Value())
		switch o := cmd.byKey[key.Value]; {
		case o == nil || !o.isSetting():
			cmd.problem("there is no setting %.60q%s (%s)", key.Value, didYouMean(key.Value, cmd.keys), place)
		case o.key == "config":
			cmd.problem("config cannot name another file from within a file (%s)", place)
		case !ok:
			cmd.problem("%s has a value that is neither plain nor a list of plain values without commas (%s)", o.key, place)
		case text != "":
			o.set(text, place)
		}
	}
}

// parseFile returns the members of the mapping that a file is.
func parseFile(content []byte) (*ast.MapNodeIter, error) {
	none := (&ast.MappingNode{}).MapRange()
	file, err := parser.ParseBytes(content, 0)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			return none, fmt.Errorf("is not valid YAML at line %d", syntax.GetToken().Position.Line)
		}
		return none, errors.New("is not valid YAML")
	}
	isEmpty := func(doc *ast.DocumentNode) bool { return doc.Body == nil || doc.Body.Type() == ast.CommentType }
	docs := slices.DeleteFunc(file.Docs, isEmpty)
	if len(docs) == 0 {
		return none, nil
	}
	mapping, ok := docs[0].Body.(ast.MapNode)
	switch {
	case len(docs) > 1:
		return none, errors.New("must be a single YAML document")
	case !ok:
		return none, errors.New(`must be a YAML mapping, like "ping-interval: 25s"`)
	}
	return mapping.MapRange(), nil
}

// plainText is a value as a flag would have it: the elements of a list comma-separated, the members of
// a mapping as key=value. Nothing is interpreted, lest a secret of digits become a number.
func plainText(node ast.Node) (text string, ok bool) {
	var parts []string
	ok = true
	add := func(prefix string, node ast.Node) {
		_, isScalar := node.(ast.ScalarNode)
		part, isPlain := plainText(node)
		parts, ok = append(parts, prefix+part), ok && isScalar && isPlain && !strings.Contains(part, ",")
	}
	switch node := node.(type) {
	case *ast.NullNode:
	case *ast.LiteralNode:
		return strings.TrimSuffix(node.Value.Value, "\n"), true
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return node.GetToken().Value, true
	case *ast.SequenceNode:
		for _, element := range node.Values {
			add("", element)
		}
	case ast.MapNode:
		for members := node.MapRange(); members.Next(); {
			add(members.Key().GetToken().Value+"=", members.Value())
		}
	default: // an anchor, an alias or a tag
		return "", false
	}
	return strings.Join(parts, ","), ok
}
