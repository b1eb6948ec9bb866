package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The functions that docs/architecture.md walks through are there, and each step that is
// a call is one that an earlier function of the list makes, in this order.
func TestWalks(t *testing.T) {
	_, walks, found := strings.Cut(read(t, "../../docs/architecture.md"), "## The walks")
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
		var earlier []string
		free := false
		last := map[string]token.Pos{} // in the body of an earlier function, what has been walked of it
		for _, step := range regexp.MustCompile("([→⇒|]?)\\s*`([A-Za-z.]+)`").FindAllStringSubmatch(item, -1) {
			kind, name := step[1], step[2]
			if n++; known[name] == nil {
				t.Errorf("there is no function %s", name)
				continue
			}
			called := len(earlier) == 0 || kind == "⇒" || kind == "|" && free
			for _, caller := range earlier {
				for _, at := range known[caller][name[strings.LastIndexByte(name, '.')+1:]] {
					if (at > last[caller] || kind == "|" && at == last[caller]) && !called {
						called, last[caller] = true, at
					}
				}
			}
			if !called {
				t.Errorf("%s: none of the functions before it calls it, or not in this order", name)
			}
			earlier, free = slices.Insert(earlier, 0, name), kind == "⇒" || kind == "|" && free
		}
	}
	if n < 40 {
		t.Errorf("the walks have %d functions", n)
	}
}

// What the journeys of docs/architecture.md name in code is there.
func TestJourneys(t *testing.T) {
	document := read(t, "../../docs/architecture.md")
	known, n := identifiers(t), 0
	for _, section := range strings.Split(document, "\n## ") {
		if !strings.HasPrefix(section, "The journey of ") {
			continue
		}
		for _, m := range regexp.MustCompile("`([A-Za-z]+(?:\\.[A-Za-z]+)*)`").FindAllStringSubmatch(section, -1) {
			last := m[1][strings.LastIndexByte(m[1], '.')+1:]
			if n++; !known[last] {
				t.Errorf("nothing is called %s", m[1])
			}
		}
	}
	if n < 40 {
		t.Errorf("the journeys have %d names", n)
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
// Type.Name and package.Type.Name; and of each, where its body has which identifiers.
func functions(t *testing.T) map[string]map[string][]token.Pos {
	t.Helper()
	known := map[string]map[string][]token.Pos{}
	eachFile(t, func(f *ast.File) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			called := []string{f.Name.Name + "." + fn.Name.Name}
			if fn.Recv != nil {
				of := fn.Recv.List[0].Type
				if p, ok := of.(*ast.StarExpr); ok {
					of = p.X
				}
				if id, ok := of.(*ast.Ident); ok {
					called = []string{id.Name + "." + fn.Name.Name, f.Name.Name + "." + id.Name + "." + fn.Name.Name}
				}
			}
			for _, name := range called {
				if known[name] == nil {
					known[name] = map[string][]token.Pos{}
				}
				if fn.Body != nil {
					var later token.Pos // of what is deferred: it comes last
					ast.Inspect(fn.Body, func(n ast.Node) bool {
						switch n := n.(type) {
						case *ast.DeferStmt:
							later = n.End()
						case *ast.Ident:
							at := n.Pos()
							if at < later {
								at = fn.Body.End()
							}
							known[name][n.Name] = append(known[name][n.Name], at)
						}
						return true
					})
				}
			}
		}
	})
	return known
}

// identifiers are all that anything is called in the sources.
func identifiers(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	eachFile(t, func(f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				known[n.Name] = true
			case *ast.BasicLit: // a field of JSON
				known[strings.Trim(n.Value, "\"")] = true
			}
			return true
		})
	})
	return known
}

// eachFile calls do with every file of the sources, whose positions can be told apart.
func eachFile(t *testing.T, do func(*ast.File)) {
	t.Helper()
	positions := token.NewFileSet()
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
			f, err := parser.ParseFile(positions, path, nil, parser.SkipObjectResolution)
			if err == nil {
				do(f)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The tests that documents name are there.
func TestDocumentsNameTests(t *testing.T) {
	known := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(read(t, path), -1) {
			known[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(documents, "../../README.md", "../../SECURITY.md", "../../CONTRIBUTING.md") {
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz)\\w+)(/[^`]*)?`").FindAllStringSubmatch(read(t, file), -1) {
			if !known[m[1]] {
				t.Errorf("%s: there is no test %s", filepath.Base(file), m[1])
			}
		}
	}
}
