package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What a library owes its users: each exported name says what it is, and nothing is
// decided by the environment, which is the command line's to read.
func TestLibraries(t *testing.T) {
	// Methods whose interface says all.
	known := []string{"Error", "Unwrap", "Is", "String", "Read", "Write", "Close", "LocalAddr", "RemoteAddr"}
	// These hand on what others read: a window's toolkit, and where tests keep what they made.
	reads := []string{"runtime/qemu/qemu.go", "builder/buildertest/buildertest.go"}
	for _, part := range []string{"runtime", "builder", "initramfs", "release", "kernel-config"} {
		err := filepath.WalkDir("../../"+part, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/node_modules/") {
				return err
			}
			files := token.NewFileSet()
			f, err := parser.ParseFile(files, path, nil, parser.ParseComments)
			if err != nil || f.Name.Name == "main" {
				return err
			}
			for _, name := range undocumented(f) {
				if !slices.Contains(known, name.Name) {
					t.Errorf("%s: %s has no comment", files.Position(name.Pos()), name.Name)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok || s.Sel.Name != "Getenv" && s.Sel.Name != "LookupEnv" {
					return true
				}
				if !slices.Contains(reads, strings.TrimPrefix(filepath.ToSlash(path), "../../")) {
					t.Errorf("%s: a library reads the environment", files.Position(s.Pos()))
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// What other programs import has types of its own: those of the protocol, and of the
// client that speaks it, change as host and guest need.
func TestLibrariesHaveTypesOfTheirOwn(t *testing.T) {
	for _, dir := range []string{"runtime", "runtime/session", "runtime/desktop", "runtime/forward", "runtime/network", "runtime/image", "runtime/volume", "runtime/vm", "builder", "builder/dockerfile", "release"} {
		sources, err := filepath.Glob("../../" + dir + "/*.go")
		if err != nil || len(sources) == 0 {
			t.Fatalf("%s: %d sources, %v", dir, len(sources), err)
		}
		for _, path := range sources {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			files := token.NewFileSet()
			f, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range exported(f) {
				ast.Inspect(n, func(n ast.Node) bool {
					s, ok := n.(*ast.SelectorExpr)
					if !ok {
						return true
					}
					if of, ok := s.X.(*ast.Ident); ok && (of.Name == "protocol" || of.Name == "client") {
						t.Errorf("%s: an exported name has the type %s.%s", files.Position(s.Pos()), of.Name, s.Sel.Name)
					}
					return true
				})
			}
		}
	}
}

// exported are the types that a file's users see: of functions, methods and fields.
func exported(f *ast.File) (types []ast.Node) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && (d.Recv == nil || exportedType(d.Recv.List[0].Type)) {
				types = append(types, d.Type)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					fields, isStruct := s.Type.(*ast.StructType)
					if !s.Name.IsExported() {
						continue
					}
					if !isStruct {
						types = append(types, s.Type)
						continue
					}
					for _, field := range fields.Fields.List {
						if len(field.Names) == 0 || slices.ContainsFunc(field.Names, (*ast.Ident).IsExported) {
							types = append(types, field.Type)
						}
					}
				case *ast.ValueSpec:
					if s.Type != nil && s.Names[0].IsExported() {
						types = append(types, s.Type)
					}
				}
			}
		}
	}
	return types
}

// undocumented are a file's exported names without a comment.
func undocumented(f *ast.File) (names []*ast.Ident) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || exportedType(d.Recv.List[0].Type)) {
				names = append(names, d.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && s.Doc == nil && d.Doc == nil {
						names = append(names, s.Name)
					}
				case *ast.ValueSpec:
					// A comment before a group is that of its names.
					if s.Doc == nil && d.Doc == nil && s.Comment == nil && s.Names[0].IsExported() && !grouped(d, s) {
						names = append(names, s.Names...)
					}
				}
			}
		}
	}
	return names
}

// grouped says whether a name stands right below one that has a comment.
func grouped(d *ast.GenDecl, s *ast.ValueSpec) bool {
	i := slices.Index(d.Specs, ast.Spec(s))
	for i--; i >= 0; i-- {
		if v, ok := d.Specs[i].(*ast.ValueSpec); ok && v.Doc != nil {
			return true
		}
	}
	return false
}

func exportedType(e ast.Expr) bool {
	if s, ok := e.(*ast.StarExpr); ok {
		e = s.X
	}
	name, ok := e.(*ast.Ident)
	return ok && name.IsExported()
}
