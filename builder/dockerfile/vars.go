package dockerfile

import (
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// environ is variables, NAME=value, in the order in which they came.
type environ []string

func (e environ) get(name string) (string, bool) {
	for _, v := range e {
		if k, value, _ := strings.Cut(v, "="); k == name {
			return value, true
		}
	}
	return "", false
}

// with sets a variable, in a list of its own.
func (e environ) with(name, value string) environ {
	list := make(environ, 0, len(e)+1)
	found := false
	for _, v := range e {
		if k, _, _ := strings.Cut(v, "="); k == name {
			v, found = name+"="+value, true
		}
		list = append(list, v)
	}
	if !found {
		list = append(list, name+"="+value)
	}
	return list
}

// expand replaces variables in a word.
func (f *File) expand(word string, env environ) (string, error) {
	s, _, err := shell.NewLex(f.escape).ProcessWord(word, shell.EnvsFromSlice(env))
	return s, err
}

// proxyArgs are build arguments that need no ARG; commands have them, and nothing
// of the result says so.
var proxyArgs = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"}

// platformArgs are build arguments that have a value, in a stage that declares
// them.
func platformArgs(host, target, stage string) environ {
	if stage == "" {
		stage = "default"
	}
	return environ{
		"BUILDPLATFORM=linux/" + host, "BUILDOS=linux", "BUILDOSVERSION=", "BUILDARCH=" + host, "BUILDVARIANT=",
		"TARGETPLATFORM=linux/" + target, "TARGETOS=linux", "TARGETOSVERSION=", "TARGETARCH=" + target, "TARGETVARIANT=",
		"TARGETSTAGE=" + stage,
	}
}
