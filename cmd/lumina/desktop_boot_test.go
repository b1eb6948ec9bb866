package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A desktop of a Mac that cannot have its window says so before it boots.
func TestMacScreen(t *testing.T) {
	mine := filepath.Join(t.TempDir(), "console")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	others := filepath.Join(t.TempDir(), "none")
	ssh := map[string]string{"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"}
	for _, tt := range []struct {
		name, console string
		env           map[string]string
		fails         bool
	}{
		{"at the screen", others, nil, false},
		{"over ssh", others, ssh, true},
		{"over ssh, by its terminal", others, map[string]string{"SSH_TTY": "/dev/ttys001"}, true},
		{"over ssh, and at the screen", mine, ssh, false},
	} {
		err := checkMacScreen(func(name string) string { return tt.env[name] }, tt.console)
		if (err != nil) != tt.fails || err != nil && !strings.Contains(err.Error(), "--headless") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
