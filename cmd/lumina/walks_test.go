package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The functions that docs/architecture.md walks through are there.
func TestWalks(t *testing.T) {
	document := read(t, "../../docs/architecture.md")
	_, walks, found := strings.Cut(document, "## The walks")
	if !found {
		t.Fatal("architecture.md has no walks")
	}
	walks, _, _ = strings.Cut(walks, "\n## ")
	known := functions(t)
	n := 0
	for _, item := range strings.Split(walks, "\n- ") {
		if !strings.HasPrefix(item, "Today") {
			continue
		}
		for _, m := range regexp.MustCompile("`([A-Za-z.]+)`").FindAllStringSubmatch(item, -1) {
			if n++; !known[m[1]] {
				t.Errorf("there is no function %s", m[1])
			}
		}
	}
	if n < 40 {
		t.Errorf("the walks have %d functions", n)
	}
}

// Each package that other programs import has an example that runs.
func TestPublicPackages(t *testing.T) {
	_, table, found := strings.Cut(read(t, "../../docs/architecture.md"), "## What other programs import")
	if !found {
		t.Fatal("architecture.md does not list them")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	example := regexp.MustCompile(`(?ms)^func Example.*?^\t// Output:`)
	n := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\|").FindAllStringSubmatch(table, -1) {
		for _, name := range strings.Split(row[1], ", ") {
			n++
			files, err := filepath.Glob(filepath.Join("../..", strings.Trim(name, "`"), "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			var all strings.Builder
			for _, f := range files {
				all.WriteString(read(t, f))
			}
			if !example.MatchString(all.String()) {
				t.Errorf("%s has no example", name)
			}
		}
	}
	if n < 10 {
		t.Errorf("the table has %d packages", n)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// functions are those of the repository: a function as package.Name, a method as
// Type.Name and package.Type.Name.
func functions(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	for _, part := range []string{"cmd", "runtime", "builder", "initramfs"} {
		err := filepath.WalkDir("../../"+part, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "node_modules" {
				return fs.SkipDir
			}
			if d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				name := fn.Name.Name
				if fn.Recv != nil {
					of := fn.Recv.List[0].Type
					if p, ok := of.(*ast.StarExpr); ok {
						of = p.X
					}
					if id, ok := of.(*ast.Ident); ok {
						name = id.Name + "." + name
						known[name] = true
					}
				}
				known[f.Name.Name+"."+name] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return known
}
