package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// fileValue is a member of the file, its value as text.
type fileValue struct {
	key, text string
	line      int
}

// parseFile reads a YAML mapping of settings. Values stay the text that is in
// the file, so that a secret of digits is not taken for a number. A list is a
// sequence or a comma-separated text; api-keys may also be a mapping.
//
// Errors name a line and never quote it: it could hold a secret.
func parseFile(content []byte) ([]fileValue, error) {
	file, err := parser.ParseBytes(content, 0)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			return nil, fmt.Errorf("is not valid YAML at line %d", syntax.GetToken().Position.Line)
		}
		return nil, errors.New("is not valid YAML")
	}
	var values []fileValue
	for i, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if i > 0 {
			return nil, errors.New("must be a single YAML document")
		}
		members, ok := mapping(doc.Body)
		if !ok {
			return nil, errors.New("must be a YAML mapping, like \"ping-interval: 25s\"")
		}
		for _, member := range members {
			line := member.Key.GetToken().Position.Line
			text, ok := fileText(member.Value)
			if !ok {
				return nil, fmt.Errorf("has a value at line %d that is neither a plain value nor a list of them", line)
			}
			values = append(values, fileValue{key: member.Key.GetToken().Value, text: text, line: line})
		}
	}
	return values, nil
}

// mapping returns the members of a mapping. One with a single member has a
// node type of its own.
func mapping(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch node := node.(type) {
	case *ast.MappingNode:
		return node.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{node}, true
	case *ast.CommentGroupNode:
		return nil, true // a file of comments only
	}
	return nil, false
}

func fileText(node ast.Node) (string, bool) {
	if members, ok := mapping(node); ok {
		var parts []string
		for _, member := range members {
			value, ok := scalar(member.Value)
			if !ok {
				return "", false
			}
			parts = append(parts, member.Key.GetToken().Value+"="+value)
		}
		return strings.Join(parts, ","), true
	}
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return scalar(node)
	}
	var parts []string
	for _, element := range list.Values {
		part, ok := scalar(element)
		if !ok || strings.Contains(part, ",") {
			return "", false
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ","), true
}

func scalar(node ast.Node) (string, bool) {
	switch node := node.(type) {
	case *ast.StringNode:
		return node.Value, true
	case *ast.LiteralNode:
		return strings.TrimSuffix(node.Value.Value, "\n"), true
	case *ast.NullNode:
		return "", true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return node.GetToken().Value, true
	}
	return "", false
}
