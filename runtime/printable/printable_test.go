package printable

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLine(t *testing.T) {
	for name, tt := range map[string]struct{ in, line, lines string }{
		"plain":               {"a plain text, äöü, 日本語, 👍", "a plain text, äöü, 日本語, 👍", "a plain text, äöü, 日本語, 👍"},
		"an escape sequence":  {"\x1b[2J\x1b]0;title\a", `\x1b[2J\x1b]0;title\a`, `\x1b[2J\x1b]0;title\a`},
		"a line break":        {"a\nlumina: all is well", `a\nlumina: all is well`, "a\nlumina: all is well"},
		"a carriage return":   {"bad\rgood", `bad\rgood`, `bad\rgood`},
		"both":                {"a\r\nb", `a\r\nb`, "a\nb"},
		"a tab":               {"a\tb", `a\tb`, "a\tb"},
		"C1, one byte":        {"\x9b2J", `\x9b2J`, `\x9b2J`},
		"C1, UTF-8":           {"\u009b2J", `\u009b2J`, `\u009b2J`},
		"DEL and NUL":         {"\x7f\x00", `\x7f\x00`, `\x7f\x00`},
		"broken UTF-8":        {"a\xff\xc3b", `a\xff\xc3b`, `a\xff\xc3b`},
		"bidi":                {"a\u202egnp.exe", `a\u202egnp.exe`, `a\u202egnp.exe`},
		"isolates":            {"\u2066x\u2069", `\u2066x\u2069`, `\u2066x\u2069`},
		"line separators":     {"a\u2028b\u2029c\u0085d", `a\u2028b\u2029c\u0085d`, `a\u2028b\u2029c\u0085d`},
		"invisible":           {"a\u200bb\ufeffc\U000e0041", `a\u200bb\ufeffc\U000e0041`, `a\u200bb\ufeffc\U000e0041`},
		"the replacement":     {"a\ufffdb", "a\ufffdb", "a\ufffdb"},
		"a no-break space":    {"a\u00a0b", "a\u00a0b", "a\u00a0b"},
		"a surrogate, UTF-8?": {"\xed\xa0\x80", `\xed\xa0\x80`, `\xed\xa0\x80`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Line(tt.in); got != tt.line {
				t.Errorf("Line(%q) = %q, want %q", tt.in, got, tt.line)
			}
			if got := Lines(tt.in); got != tt.lines {
				t.Errorf("Lines(%q) = %q, want %q", tt.in, got, tt.lines)
			}
		})
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\x1b[2Jb\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{Line(s), strings.NewReplacer("\n", "", "\t", "").Replace(Lines(s))} {
			if !utf8.ValidString(got) {
				t.Errorf("%q became %q", s, got)
			}
			for _, r := range got {
				if Acts(r) {
					t.Errorf("%q became %q, which has %U", s, got, r)
				}
			}
		}
	})
}

// JSON is spelled otherwise, and means the same.
func FuzzJSON(f *testing.F) {
	f.Add("a\x1b\x7f\u009b2J\u202e\U000e0041\u2028 <&>")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := json.Marshal(map[string]string{s: s})
		if err != nil {
			t.Fatal(err)
		}
		got := JSON(b)
		var before, after map[string]string
		if err := json.Unmarshal(b, &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		for k, v := range before {
			if after[k] != v {
				t.Errorf("%q became %q", b, got)
			}
		}
		for _, r := range string(got) {
			if Acts(r) {
				t.Errorf("%q became %q, which has %U", b, got, r)
			}
		}
	})
}
