package main

import (
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/runtime"
)

func TestParseVolume(t *testing.T) {
	dir := t.TempDir()
	for s, want := range map[string]runtime.Volume{
		"data:/x":            {Name: "data", Path: "/x"},
		"data:/x/../y":       {Name: "data", Path: "/y"},
		dir + ":/x":          {Dir: dir, Path: "/x"},
		dir + ":/x:ro":       {Dir: dir, Path: "/x", ReadOnly: true},
		dir + ":/x:rw":       {Dir: dir, Path: "/x"},
		dir + ":/x:z":        {Dir: dir, Path: "/x"}, // docker's, for SELinux
		dir + ":/x:ro,Z":     {Dir: dir, Path: "/x", ReadOnly: true},
		dir + ":/x:cached":   {Dir: dir, Path: "/x"},
		dir + "/../:/x:ro,z": {Dir: dir[:strings.LastIndexByte(dir, '/')], Path: "/x", ReadOnly: true},
	} {
		if got, err := parseVolume(s); err != nil || got != want {
			t.Errorf("parseVolume(%q) = %+v, %v", s, got, err)
		}
	}
	for s, want := range map[string]string{
		"data":                 "is not NAME:PATH",
		"data:x":               "is not NAME:PATH",
		"data:/x:exec":         `no option "exec"`,
		dir + ":/x:ro,":        `no option ""`,
		dir + "/none:/x":       "make it first",
		"/etc/passwd:/x":       "copy a file with --copy /etc/passwd:/x",
		"../" + "\x00" + ":/x": "",
	} {
		if v, err := parseVolume(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseVolume(%q) = %+v, %v", s, v, err)
		}
	}
}
