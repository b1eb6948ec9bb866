package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The rules are docker's.
func TestVariables(t *testing.T) {
	env := &environment{lookupEnv: func(name string) (string, bool) {
		v, ok := map[string]string{"SECRET": "s3cret", "EMPTY": ""}[name]
		return v, ok
	}}
	file := filepath.Join(t.TempDir(), "env")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\xEF\xBB\xBF# comment\n\n  \t\nA=1\n  B='quoted' # kept \nC=\nSECRET\n  SECRET  \nNOTSET\nD=a=b\r\n#E=1\n  #F=1\nG=" + strings.Repeat("x", 100000) + "\nlast=no newline")
	got, err := variables(env, []string{"A=2", "EMPTY", "NOTSET", "SECRET", "H=", "I=a b"}, []string{file})
	want := []string{"A=1", "B='quoted' # kept ", "C=", "SECRET=s3cret", "SECRET=s3cret", "D=a=b", "G=" + strings.Repeat("x", 100000), "last=no newline",
		"A=2", "EMPTY=", "SECRET=s3cret", "H=", "I=a b"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("variables() = %q, %v, want %q", got, err, want)
	}
	for text, want := range map[string]string{
		"A=1\n=2\n":                    `env:2: "" is not a variable's name`,
		"A B=2\n":                      `env:1: "A B" is not a variable's name`,
		"A =2\n":                       `env:1: "A " is not a variable's name`,
		"export A=2\n":                 `"export A" is not a variable's name`,
		"A=\xff\n":                     "env:1: it is not text",
		"A=1\nB=\x00\n":                "env:2: it is not text",
		strings.Repeat("x", 5<<20):     "longer than",
		strings.Repeat("A=1\n", 2<<20): "longer than",
	} {
		write(text)
		if _, err := variables(env, nil, []string{file}); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
	if _, err := variables(env, nil, []string{t.TempDir()}); err == nil {
		t.Error("a directory is not a file of variables")
	}
}
