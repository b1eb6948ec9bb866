package strictyaml

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type document struct {
	Base    string            `yaml:"base"`
	Count   int               `yaml:"count"`
	Full    bool              `yaml:"full"`
	Run     []string          `yaml:"run"`
	Env     map[string]string `yaml:"env"`
	Files   []file            `yaml:"files"`
	Part    *file             `yaml:"part"`
	Ignored string            `yaml:"-"`
}

type file struct {
	Path string `yaml:"path"`
	UID  int    `yaml:"uid"`
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"nothing", "", "line 1: it is empty"},
		{"a comment only", "# x\n\n", "line 1: it is empty"},
		{"an empty document", "---\n", "line 1: it is empty"},
		{"null", "~\n", "line 1: it is empty"},
		{"a byte order mark only", "\ufeff", "line 1: it is empty"},
		{"two documents", "base: a\n---\nbase: b\n", "line 2: a second document begins here"},
		{"a list", "- base\n", "line 1: want fields: base, count, full, run, env, files, part; it is a list"},
		{"text", "base\n", `line 1: want fields: base, count, full, run, env, files, part; it is the text "base"`},
		{"a number", "42\n", `line 1: want fields: base, count, full, run, env, files, part; it is the number "42"`},

		{"text for a list", "base: a\nrun: git\n", `line 2: run: want a list, such as [a, b]; it is the text "git"`},
		{"fields for a list", "run: {a: b}\n", "line 1: run: want a list, such as [a, b]; it has fields"},
		{"a list for text", "base: a\nrun:\n  - x\n  - [y]\n", `line 4: run[1]: want text; what has ": " in it, or begins with [, { or -, goes into quotes; it is a list`},
		{"fields for text", "run:\n  - echo a: b\n", `line 2: run[0]: want text; what has ": " in it, or begins with [, { or -, goes into quotes; it has fields`},
		{"a list for fields", "files:\n  - [a]\n", "line 2: files[0]: want fields: path, uid; it is a list"},
		{"text for fields", "part: here\n", `line 1: part: want fields: path, uid; it is the text "here"`},
		{"a list for names", "env: [A=b]\n", "line 1: env: want names with values, such as {NAME: value}; it is a list"},
		{"a list for a value", "env:\n  A: [b]\n", "line 2: env.A: want text;"},
		{"an empty item", "run:\n  - a\n  -\n  - b\n", "line 3: run[1]: it is empty"},
		{"text for a number", "count: many\n", `line 1: count: want a whole number; it is the text "many"`},
		{"a fraction", "count: 1.5\n", `line 1: count: want a whole number; it is the number "1.5"`},
		{"too large a number", "count: 99999999999999999999\n", `line 1: count: want a whole number; it is the number "99999999999999999999"`},
		{"true for a number", "count: true\n", `line 1: count: want a whole number; it is "true"`},
		{"a list for a number", "files: [{uid: [1]}]\n", "line 1: files[0].uid: want a whole number; it is a list"},
		{"text for true", "full: maybe\n", `line 1: full: want true or false; it is the text "maybe"`},
		{"a number for true", "full: 1\n", `line 1: full: want true or false; it is the number "1"`},
		{"binary that is none", "base: !!binary =x\n", "line 1: base: want text;"},
		{"a tag that does not fit", "base: !!int x\n", "line 1: base: want text;"},

		{"an unknown field", "base: a\n\nruns: [git]\n", `line 3: runs: there is no such field; "run" may be meant`},
		{"capitals", "BASE: a\n", `line 1: BASE: there is no such field; "base" may be meant`},
		{"one like none", "zebra: a\n", "line 1: zebra: there is no such field; there are base, count, full, run, env, files, part"},
		{"one that Go has and YAML has not", "Ignored: a\n", "line 1: Ignored: there is no such field"},
		{"one within", "files:\n- path: /x\n  owner: 1\n", "line 3: files[0].owner: there is no such field; there are path, uid"},
		{"one with an odd name", "\"a\\e[2J\": a\n", `line 1: "a\x1b[2J": there is no such field`},
		{"a number as a field", "1: a\n", "line 1: 1: there is no such field"},
		{"a list as a field", "? [a]\n: b\n", "line 1: the name of a field is not text"},
		{"twice", "base: a\nrun: [b]\nbase: c\n", "line 3: base: it is given twice, first on line 1"},
		{"twice within", "env:\n  A: b\n  A: c\n", "line 3: env.A: it is given twice, first on line 2"},

		{"an alias of nothing", "base: a\nrun: [*x]\n", "line 2: *x refers to &x, which does not exist"},
		{"an alias of itself", "env: &e\n  A: *e\n", "line 1: env.A: want text;"},
		{"a list of itself", "files: [&f {path: *f}]\n", "line 1: files[0].path: want text;"},
		{"a merge of itself", "part: &p\n  <<: *p\n", "line 2: part: *p stands for itself"},
		{"aliases without an end", "env: {A: &a x}\nfiles: &b [" + strings.Repeat("{path: *a},", 200) + "]\nrun: &c [" + strings.Repeat("*a,", 20000) + "]\n", "line 3: the aliases, such as *a, stand for more than 10000 values"},
		{"a merge of what has no fields", "base: &b text\npart:\n  <<: *b\n", "line 3: part.<<: want fields: path, uid; it is the text \"text\""},
		{"a merge with an unknown field", "env: &e {A: b}\npart:\n  <<: *e\n", "line 1: part.A: there is no such field"},

		{"a tab", "base: a\nrun:\n\t- x\n", "line 3: a tab is in the indentation; YAML takes spaces"},
		{"a tab before a field", "part:\n\tpath: /x\n", "line 2: a tab is in the indentation"},
		{"a tab deep within", "files:\n  - path: /x\n\tuid: 1\n", "line 3: a tab is in the indentation"},
		{"a colon in text", "base: a: b\n", `line 1: a ": " or an indentation where none can be`},
		{"an indentation that fits nothing", "base: a\n  run: [x]\n", `line 2: a ": " or an indentation where none can be`},
		{"less of it", "files:\n    - path: /x\n   - path: /y\n", "line 3: this line is no "},
		{"an open list", "base: a\nrun: [a\ncount: 1\n", "line 2: the list that begins with [ here has no ]"},
		{"open fields", "base: a\nenv: {A: b\ncount: 1\n", "line 2: what begins with { here has no }"},
		{"an open list on the first line", "run: [a\n", "line 1: the list that begins with [ here has no ]"},
		{"no colon", "base: a\nrun\ncount: 1\n", `line 2: a field needs ": " after its name`},
		{"an open quote", "base: a\nrun: [\"x]\ncount: 1\n", "line 2: a quote that begins here is not closed"},
		{"an escape that is none", "base: \"\\d+\"\n", `line 1: \ in double quotes begins an escape`},
		{"a quote in quotes", "base: a\nrun: [a]\nenv:\n  A: 'it's'\n", "line 4: this line is no field"},
		{"a list beside fields", "base: a\n- x\n", "line 2: this line is no field"},
		{"a list on its field's line", "base: a\nrun: - x\n", "line 2: a list of lines that begin with - begins on the line after its field"},
		{"a reserved character", "base: @x\n", "line 1: a value cannot begin with this character"},
		{"text behind >", "base: >x\n", "line 1: behind > and | there is no text"},
		{"a control character", "base: a\nrun: [\x01]\n", "line 2: a control character"},
		{"no UTF-8", "base: a\nrun: [\xff]\n", "line 2: it is not UTF-8"},
		{"text after the end", "base: a\n...\nfoo\n", "line 3: there is text after the document's end"},
		{"another YAML", "%YAML 3.0\n---\nbase: a\n", "line 1: %YAML asks for another version"},
		{"a second one that is none", "base: a\n---\n[\n", "line 3: "},
	}
	for _, tt := range tests {
		var got document
		err := Read([]byte(tt.yaml), &got)
		var at *Error
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
		if err == nil {
			continue
		}
		for _, word := range []string{"!!", "unmarshal", "mapping", "sequence", "scalar", "token", "\n", "strictyaml."} {
			if strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v: it has %q in it", tt.name, err, word)
			}
		}
	}
}

func TestRead(t *testing.T) {
	tests := []struct {
		name, yaml string
		want       document
	}{
		{"numbers and truth as text", "base: 12\nrun: [true, 1.5, '', 2001-02-03, 'a: b']\nenv: {A: ~}", document{Base: "12", Run: []string{"true", "1.5", "", "2001-02-03", "a: b"}, Env: map[string]string{"A": ""}}},
		{"nothing given", "base: a\nrun:\nenv:\npart:\ncount:\n", document{Base: "a"}},
		{"a byte order mark, and lines that end as in Windows", "\ufeffbase: a\r\nrun:\r\n  - |\r\n    b\r\n    c\r\n", document{Base: "a", Run: []string{"b\nc\n"}}},
		{"UTF-16", "\xff\xfeb\x00a\x00s\x00e\x00:\x00 \x00a\x00", document{Base: "a"}},
		{"JSON", `{"base": "a", "files": [{"path": "/x", "uid": 3}], "full": true}`, document{Base: "a", Full: true, Files: []file{{"/x", 3}}}},
		{"anchors", "base: &b a\nrun: [*b, *b]\n", document{Base: "a", Run: []string{"a", "a"}}},
		{"merged fields", "files:\n- &f {path: /x, uid: 1}\n- {<<: *f, path: /y}\n", document{Files: []file{{"/x", 1}, {"/y", 1}}}},
		{"a mark of the beginning and of the end", "---\nbase: a\n...\n", document{Base: "a"}},
		{"a number in another base", "count: 0x10\n", document{Count: 16}},
	}
	for _, tt := range tests {
		var got document
		if err := Read([]byte(tt.yaml), &got); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("base: a\nrun: [b]\nfiles: [{path: x, uid: 1}]\n")
	f.Add("a: &a [*a]\n<<: *a\n")
	f.Add("base: a\n\trun: 'x\n")
	f.Fuzz(func(t *testing.T, text string) {
		var d document
		err := Read([]byte(text), &d)
		var at *Error
		if err != nil && (!errors.As(err, &at) || at.Line < 1 || at.Line > 1+strings.Count(text, "\n")+strings.Count(text, "\r")) {
			t.Errorf("%v", err)
		}
	})
}
