package realtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"jobwire/internal/events"
)

func TestDecodeAcceptsTheProtocolsExamples(t *testing.T) {
	id := func(p packet, n uint64) packet { p.id, p.hasID = n, true; return p }
	for text, want := range map[string]packet{
		`0`:                         {kind: packetConnect, namespace: "/"},
		`0/admin,`:                  {kind: packetConnect, namespace: "/admin"},
		`0/admin`:                   {kind: packetConnect, namespace: "/admin"},
		`0/,`:                       {kind: packetConnect, namespace: "/"},
		`0{"token":"123"}`:          {kind: packetConnect, namespace: "/", payload: json.RawMessage(`{"token":"123"}`)},
		`0/admin,{"token":"123"}`:   {kind: packetConnect, namespace: "/admin", payload: json.RawMessage(`{"token":"123"}`)},
		`1`:                         {kind: packetDisconnect, namespace: "/"},
		`1/admin,`:                  {kind: packetDisconnect, namespace: "/admin"},
		`2["foo"]`:                  {kind: packetEvent, namespace: "/", event: "foo", args: values()},
		`2["foo",1 , {"a":[1,2]} ]`: {kind: packetEvent, namespace: "/", event: "foo", args: values(`1`, `{"a":[1,2]}`)},
		`2["f\u006fo","]"]`:         {kind: packetEvent, namespace: "/", event: "foo", args: values(`"]"`)},
		`2["\"",","]`:               {kind: packetEvent, namespace: "/", event: `"`, args: values(`","`)},
		`2/admin,["bar"]`:           {kind: packetEvent, namespace: "/admin", event: "bar", args: values()},
		`212["foo"]`:                id(packet{kind: packetEvent, namespace: "/", event: "foo", args: values()}, 12),
		`20["foo"]`:                 id(packet{kind: packetEvent, namespace: "/", event: "foo", args: values()}, 0),
		`3/admin,13["bar"]`:         id(packet{kind: packetAck, namespace: "/admin", args: values(`"bar"`)}, 13),
		`31[]`:                      id(packet{kind: packetAck, namespace: "/", args: nil}, 1),
		`29007199254740991["x"]`:    id(packet{kind: packetEvent, namespace: "/", event: "x", args: values()}, 1<<53-1),
		`51-["baz",{"_placeholder":true,"num":0}]`: {
			kind: packetBinaryEvent, namespace: "/", event: "baz", missing: 1, args: values(`{"_placeholder":true,"num":0}`)},
		`50-["baz"]`: {kind: packetBinaryEvent, namespace: "/", event: "baz", args: values()},
		`52-/admin,["baz",{"num":1,"_placeholder":true}]`: {
			kind: packetBinaryEvent, namespace: "/admin", event: "baz", missing: 2, args: values(`{"num":1,"_placeholder":true}`)},
		`61-15["bar",{"_placeholder":true,"num":0}]`: id(packet{
			kind: packetBinaryAck, namespace: "/", missing: 1, args: values(`"bar"`, `{"_placeholder":true,"num":0}`)}, 15),
	} {
		got, err := decode([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", text, got, want)
		}
	}
}

func values(v ...string) []json.RawMessage {
	all := make([]json.RawMessage, 0, len(v))
	for _, s := range v {
		all = append(all, json.RawMessage(s))
	}
	return all
}

// code stands for the *events.Error with that code.
type code string

func (c code) Error() string { return string(c) }

func TestDecodeRefusesEverythingElse(t *testing.T) {
	deep := strings.Repeat("[", events.MaxDepth) + strings.Repeat("]", events.MaxDepth)
	for text, want := range map[string]error{
		"":                                  errEmpty,
		"7":                                 errType,
		"abc":                               errType,
		"\x00":                              errType,
		`4{"message":"x"}`:                  errServerOnly,
		"2[\"a\xff\"]":                      code(events.CodeInvalidUTF8),
		"2":                                 errPayload,
		"21":                                errPayload,
		"3":                                 errPayload,
		"31":                                errPayload,
		"50-":                               errPayload,
		"5":                                 errAttachments,
		"51":                                errAttachments,
		`5["a"]`:                            errAttachments,
		`5-["a"]`:                           errAttachments,
		`5+1-["a"]`:                         errAttachments,
		`501-["a"]`:                         errAttachments,
		`59-["a"]`:                          errAttachments,
		`599999999999999999999-["a"]`:       errAttachments,
		`2{}`:                               errPayload,
		`2[]`:                               errPayload,
		`2 ["a"]`:                           errPayload,
		`2[1]`:                              errPayload,
		`2[null]`:                           errPayload,
		`2[["a"]]`:                          errPayload,
		`2"a"`:                              errPayload,
		`2null`:                             errPayload,
		`2["a"`:                             code(events.CodeInvalidJSON),
		`2["a"]]`:                           code(events.CodeInvalidJSON),
		`2["a"]x`:                           code(events.CodeInvalidJSON),
		`2["a"],["b"]`:                      code(events.CodeInvalidJSON),
		`2["a",]`:                           code(events.CodeInvalidJSON),
		`2["a" "b"]`:                        code(events.CodeInvalidJSON),
		`2["a",01]`:                         code(events.CodeInvalidJSON),
		"2[\"a\nb\"]":                       code(events.CodeInvalidJSON),
		`2["a\x"]`:                          code(events.CodeInvalidJSON),
		`2abc["a"]`:                         errPayload,
		`201["a"]`:                          errAckID,
		`29007199254740992["a"]`:            errAckID,
		`299999999999999999999["a"]`:        errAckID,
		`2-1["a"]`:                          errPayload,
		`2["connect"]`:                      errReserved,
		`2["connect_error"]`:                errReserved,
		`2["disconnect"]`:                   errReserved,
		`2["disconnecting"]`:                errReserved,
		`2["newListener"]`:                  errReserved,
		`2["removeListener"]`:               errReserved,
		`2["\u0063onnect"]`:                 errReserved,
		`3["a"]`:                            errAckID,
		`31{}`:                              errPayload,
		`1{}`:                               errPayload,
		`11`:                                errPayload,
		`1[]`:                               errPayload,
		`0[]`:                               errPayload,
		`0"x"`:                              errPayload,
		`0null`:                             errPayload,
		`01{}`:                              errPayload,
		`0{`:                                code(events.CodeInvalidJSON),
		`0{}{}`:                             code(events.CodeInvalidJSON),
		`2["a",` + deep + `]`:               code(events.CodeTooDeep),
		`0{"a":` + deep + `}`:               code(events.CodeTooDeep),
		`2["a"` + strings.Repeat(",1", 128): code(events.CodeBatchTooLarge),
		`0/` + strings.Repeat("n", 255):     errNamespace,
	} {
		p, err := decode([]byte(text))
		var refusal *events.Error
		if errors.As(err, &refusal) {
			err = code(refusal.Code)
		}
		if !errors.Is(err, want) {
			t.Errorf("%.60q: %v, want %v (%+v)", text, err, want, p)
		}
	}
}

func TestDecoderPutsAttachmentsTogether(t *testing.T) {
	var d decoder
	p, err := d.text([]byte(`52-7["a",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]`))
	if p.missing != 2 || err != nil {
		t.Fatal(p, err)
	}
	if p, err = d.binary([]byte{1, 2}); p.missing != 1 || err != nil {
		t.Fatal(p, err)
	}
	if p, err = d.binary([]byte{3, 4}); p.missing != 0 || err != nil {
		t.Fatal(p, err)
	}
	if !reflect.DeepEqual(p.attachments, [][]byte{{1, 2}, {3, 4}}) || p.event != "a" || p.id != 7 || len(p.args) != 2 {
		t.Errorf("%+v", p)
	}
	if d.partial != nil {
		t.Error("the decoder keeps what is complete")
	}
}

func TestDecoderRefusesAttachmentsOutOfPlace(t *testing.T) {
	start := func() *decoder {
		var d decoder
		if _, err := d.text([]byte(`52-["a"]`)); err != nil {
			t.Fatal(err)
		}
		return &d
	}
	if _, err := new(decoder).binary([]byte{1}); !errors.Is(err, errUnexpected) {
		t.Error(err)
	}
	if _, err := start().text([]byte(`2["b"]`)); !errors.Is(err, errInterleaved) {
		t.Error(err)
	}
	d := start()
	if _, err := d.binary(make([]byte, maxAttachmentBytes-1)); err != nil {
		t.Error(err)
	}
	if _, err := d.binary(make([]byte, 2)); !errors.Is(err, errAttachedSize) {
		t.Error("the limit counts for one attachment only: ", err)
	}
}

// encode writes a packet as it was read, but for the payload.
func encode(p packet) []byte {
	text := []byte{byte(p.kind)}
	if p.kind.isBinary() {
		text = fmt.Appendf(text, "%d-", p.missing)
	}
	if p.namespace != mainNamespace {
		text = fmt.Appendf(text, "%s,", p.namespace)
	}
	if p.hasID {
		text = fmt.Appendf(text, "%d", p.id)
	}
	return text
}

// FuzzDecode: whatever decodes is well-formed, and encodes to something that decodes to the same.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`0`, `0{"token":"x","pid":"p","offset":"1-0"}`, `0/admin,{"a":1}`, `1`, `1/a,`, `2["a",1,"b",{"c":[null]}]`, `212["a"]`,
		`3/a,13["b"]`, `4{"message":"x"}`, `52-7["a",{"_placeholder":true,"num":1},{"num":0,"_placeholder":true}]`, `61-1[]`,
		`2`, `21`, `50-`, `31`, `2["a\u0000\ud800"]`, `2[[[[`, `2["a",` + strings.Repeat(`{"a":`, 70), "2[\"\xff\"]", `29007199254740992[]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decode(data)
		if err != nil {
			return
		}
		if p.kind == packetConnectError || len(p.args) > maxArgs || p.missing > maxAttachments || events.IsReserved(p.event) {
			t.Fatalf("%q: accepted as %+v", data, p)
		}
		text := encode(p)
		switch p.kind {
		case packetConnect:
			text = append(text, p.payload...)
		case packetDisconnect:
		case packetAck, packetBinaryAck:
			text = appendValues(append(text, '['), p.args)
		default:
			name, err := json.Marshal(p.event)
			if err != nil {
				t.Fatal(err)
			}
			text = appendValues(append(text, '['), append([]json.RawMessage{name}, p.args...))
		}
		again, err := decode(text)
		if err != nil {
			t.Fatalf("%q decodes, its encoding %q does not: %v", data, text, err)
		}
		if len(p.args) == 0 {
			p.args, again.args = nil, nil
		}
		if !reflect.DeepEqual(p, again) {
			t.Fatalf("%q became %q:\n%+v\n%+v", data, text, p, again)
		}
		var all []json.RawMessage
		for _, v := range p.args {
			if !json.Valid(v) {
				t.Fatalf("%q: argument %q is not JSON", data, v)
			}
			all = append(all, v)
		}
		if p.kind == packetEvent { // the standard library agrees on where the arguments are
			var std []json.RawMessage
			if err := json.Unmarshal(data[strings.IndexByte(string(data), '['):], &std); err != nil || len(std) != len(all)+1 {
				t.Fatalf("%q: %d arguments, encoding/json: %d, %v", data, len(all)+1, len(std), err)
			}
		}
	})
}

// FuzzDecoder: whatever sequence of texts and attachments comes, a packet is complete with exactly its attachments, and nothing
// is kept of one that is complete or refused.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("52-[\"a\"]\x1ebxy\x1eb\x1e2[\"b\"]"))
	f.Add([]byte("61-1[]\x1e2[\"b\"]"))
	f.Add([]byte("bxy\x1e0"))
	f.Add([]byte("58-[\"a\"]\x1eb\x1eb\x1eb\x1eb\x1eb\x1eb\x1eb\x1eb"))
	f.Fuzz(func(t *testing.T, script []byte) {
		var d decoder
		want, got := 0, 0
		for _, message := range strings.Split(string(script), "\x1e") {
			var p packet
			var err error
			if data, isBinary := strings.CutPrefix(message, "b"); isBinary {
				p, err = d.binary([]byte(data))
				got++
			} else {
				p, err = d.text([]byte(message))
				want, got = p.missing, 0
			}
			if err != nil {
				return // the ingress closes the connection
			}
			if len(p.attachments) != got || got+p.missing != want || want > maxAttachments {
				t.Fatalf("%d attachments of %d came: %+v", got, want, p)
			}
			if (p.missing > 0) != (d.partial != nil) {
				t.Fatalf("missing %d, partial %v", p.missing, d.partial)
			}
		}
	})
}
