package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// hostile is a text that would forge a line, move the cursor and turn the reading
// direction, were it printed as it is.
const hostile = "x\nlumina: all is well\t\x1b[2J\u009b1m\u202e\x7f\xff"

const hostileLine = `x\nlumina: all is well\t\x1b[2J\u009b1m\u202e\x7f\xff`

// What others chose is one cell of one line.
func TestTable(t *testing.T) {
	var out bytes.Buffer
	w := newTable(&out, "NAME", "SOURCE")
	w.row(hostile, 7)
	if err := w.print(); err != nil {
		t.Fatal(err)
	}
	want := "NAME" + strings.Repeat(" ", len(hostileLine)-2) + "SOURCE\n" + hostileLine + "  7\n"
	if out.String() != want {
		t.Errorf("the table is %q, want %q", out.String(), want)
	}
}

// JSON means what it was given, and says nothing to a terminal.
func TestJSONIsPrintable(t *testing.T) {
	valid := strings.ToValidUTF8(hostile, "")
	var plain, streamed bytes.Buffer
	if err := printJSON(&plain, map[string]string{"x": valid}); err != nil {
		t.Fatal(err)
	}
	c := &capture{buf: []byte(valid)}
	if err := (envelope{{"x", c}}).print(&streamed); err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{plain.String(), streamed.String()} {
		var got map[string]string
		if err := json.Unmarshal([]byte(b), &got); err != nil || got["x"] != valid {
			t.Errorf("%q means %q, %v; want %q", b, got["x"], err, valid)
		}
		if i := strings.IndexAny(strings.TrimSuffix(b, "\n"), "\n\x1b\x7f\u009b\u202e"); i >= 0 {
			t.Errorf("%q has %q", b, b[i:i+1])
		}
	}
}
