package recipe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseErrorsSayWhere(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"empty", "", "r.yaml:1: it is empty"},
		{"two documents", "base: a\n---\nbase: b\n", "r.yaml:2: a second document begins here"},
		{"what follows is not YAML", "base: a\n---\nb: [1\n", "r.yaml:"},
		{"no base", "description: x\n", "r.yaml:1: base: it is missing"},
		{"base that is a path", "\nbase: ./layout\n", `r.yaml:2: base: "./layout" is not an image reference: it is a path; write oci:./layout`},
		{"unknown field", "base: a\n\npackage: [git]\n", `r.yaml:3: package: there is no such field; "packages" may be meant; see recipes/schema.json`},
		{"wrong type", "base: a\npackages: git\n", `r.yaml:2: packages: want a list, such as [a, b]; it is the text "git"`},
		{"no YAML", "base: [\n", "r.yaml:"},
		{"package", "base: a\npackages:\n  - git\n  - 'x; rm -rf /'\n", `r.yaml:4: packages[1]: "x; rm -rf /" is not a package's name`},
		{"relative file", "base: a\nfiles:\n  - path: etc/x\n", `r.yaml:3: files[0].path: "etc/x" is not an absolute, clean path`},
		{"file above the root", "base: a\nfiles:\n  - path: /../x\n", "is not an absolute, clean path"},
		{"mode", "base: a\nfiles:\n  - path: /x\n    mode: rwx\n", `r.yaml:4: files[0].mode: "rwx" is not a mode`},
		{"link with content", "base: a\nfiles:\n  - {path: /x, link: y, content: z}\n", "r.yaml:3: files[0]: a link has neither"},
		{"empty step", "base: a\nrun: [' ']\n", "r.yaml:2: run[0]: it is empty"},
		{"test", "base: a\ntests:\n  - exit: 1\n", "r.yaml:3: tests[0]: it has no command"},
		{"expression", "base: a\ntests:\n  - command: x\n    stdout: '('\n", "r.yaml:4: tests[0].stdout: "},
		{"kernel option", "base: a\nkernel:\n  fragment: |\n    # Mine.\n    CONFIG_A=y\n    CONFIG_B=maybe\n", `r.yaml:6: kernel.fragment[2]: "CONFIG_B=maybe" is not an option`},
		{"kernel option on its key's line", "base: a\nkernel: {fragment: A}\n", `r.yaml:2: kernel.fragment[0]: "A" is not an option`},
		{"unknown part of the kernel", "base: a\nkernel:\n  version: 6\n", "r.yaml:3: kernel.version: there is no such field; there are fragment, full"},
		{"init", "base: a\ninit: upstart\n", `r.yaml:2: init: init "upstart": want lumina or systemd`},
		{"base and Dockerfile", "base: a\ndockerfile:\n  file: D\n", "r.yaml:1: base: it and dockerfile exclude each other"},
		{"Dockerfile without a file", "dockerfile:\n  target: x\n", "r.yaml:1: dockerfile.file: it is missing"},
		{"unknown part of a Dockerfile", "dockerfile:\n  fil: x\n", `r.yaml:2: dockerfile.fil: there is no such field; "file" may be meant`},
		{"copy without a source", "base: a\ncopy:\n  - to: /x\n", "r.yaml:3: copy[0].from: it is missing"},
		{"copy to nowhere", "base: a\ncopy:\n  - from: x\n    to: y/../z\n", `r.yaml:4: copy[0].to: "y/../z" is not an absolute, clean path`},
		{"copy's owner", "base: a\ncopy:\n  - {from: x, to: /, uid: -1}\n", "r.yaml:3: copy[0]: uid and gid are 0 to 4294967294"},
		{"a mode with more behind it", "base: a\nfiles:\n  - {path: /x, mode: 0755rwx}\n", `r.yaml:3: files[0].mode: "0755rwx" is not a mode`},
		{"an owner that is none", "base: a\nfiles:\n  - {path: /x, uid: 4294967295}\n", "r.yaml:3: files[0]: uid and gid are 0 to 4294967294"},
		{"an exit code that is none", "base: a\ntests: [{command: x, exit: -1}]\n", "r.yaml:2: tests[0].exit: -1: an exit code is 0 to 255"},
		{"fields in the place of text", "base: a\nrun:\n  - echo a: b\n", "r.yaml:3: run[0]: want text; what has \": \" in it"},
		{"duplicate", "base: a\nbase: b\n", "r.yaml:2: base: it is given twice, first on line 1"},
	}
	for _, tt := range tests {
		if _, err := Parse(strings.NewReader(tt.yaml), "r.yaml"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// What is shipped can be read.
func TestShippedRecipes(t *testing.T) {
	files, err := filepath.Glob("../../recipes/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("recipes: %v, %v", files, err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse(f, filepath.Base(name))
		f.Close()
		if err != nil {
			t.Error(err)
			continue
		}
		if r.Description == "" || len(r.Tests) == 0 {
			t.Errorf("%s has no description or no tests", name)
		}
	}
}

// The published schema knows the fields that this package reads, and no others.
func TestSchema(t *testing.T) {
	b, err := os.ReadFile("../../recipes/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties           map[string]json.RawMessage
		AdditionalProperties *bool
	}
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	compare := func(where string, typ reflect.Type, properties map[string]json.RawMessage) {
		fields := map[string]bool{}
		for i := range typ.NumField() {
			if tag := typ.Field(i).Tag.Get("yaml"); tag != "-" {
				fields[tag] = true
			}
		}
		for name := range fields {
			if properties[name] == nil {
				t.Errorf("the schema has no %s%s", where, name)
			}
		}
		for name := range properties {
			if !fields[name] {
				t.Errorf("the schema has %s%s, which no recipe may have", where, name)
			}
		}
	}
	compare("", reflect.TypeFor[Recipe](), schema.Properties)
	for name, typ := range map[string]reflect.Type{"kernel": reflect.TypeFor[Kernel](), "dockerfile": reflect.TypeFor[Dockerfile]()} {
		var object struct{ Properties map[string]json.RawMessage }
		if err := json.Unmarshal(schema.Properties[name], &object); err != nil {
			t.Fatal(err)
		}
		compare(name+".", typ, object.Properties)
	}
	for name, typ := range map[string]reflect.Type{"files": reflect.TypeFor[File](), "copy": reflect.TypeFor[Copy](), "tests": reflect.TypeFor[Test]()} {
		var list struct {
			Items struct{ Properties map[string]json.RawMessage }
		}
		if err := json.Unmarshal(schema.Properties[name], &list); err != nil {
			t.Fatal(err)
		}
		compare(name+"[].", typ, list.Items.Properties)
	}
	if schema.AdditionalProperties == nil || *schema.AdditionalProperties {
		t.Error("the schema allows unknown fields")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("base: a\npackages: [git]\ntests:\n  - command: x\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(strings.NewReader(text), "r.yaml")
		if err == nil && r.Base == "" && r.Dockerfile == nil {
			t.Error("a recipe without a base")
		}
	})
}
