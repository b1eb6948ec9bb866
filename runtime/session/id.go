package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/abdul-abdi/lumina/runtime/name"
)

// isSID says whether s has the form of an identifier that Start makes. Every exec
// asks: to compile an expression for it costs half a millisecond.
func isSID(s string) bool {
	if len(s) != len("00000000-0000-0000-0000-000000000000") {
		return false
	}
	for i, c := range []byte(s) {
		if hyphen := i == 8 || i == 13 || i == 18 || i == 23; hyphen && c != '-' || !hyphen && !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// isName says whether a session may be called so: as containers may.
func isName(s string) bool {
	for i, c := range []byte(s) {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= name.MaxLength
}

// CheckName returns an error when no session can be called so.
func CheckName(s string) error {
	if !isName(s) {
		return fmt.Errorf("session name %q: want letters, digits, '.', '_' and '-', at most %d, beginning with a letter or digit", s, name.MaxLength)
	}
	if isSID(s) {
		return fmt.Errorf("session name %q: it looks like an identifier of another session", s)
	}
	return nil
}

// Bounds of labels.
const (
	maxLabels = 64
	maxLabel  = 1024 // bytes of a label
)

// ParseLabels reads KEY=VALUE, or KEY for an empty value.
func ParseLabels(all []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, s := range all {
		key, value, _ := strings.Cut(s, "=")
		if key == "" {
			return nil, fmt.Errorf("label %.80q: the key is empty; want KEY=VALUE or KEY", s)
		}
		if len(s) > maxLabel {
			return nil, fmt.Errorf("label %.80q: it is longer than %d bytes", s, maxLabel)
		}
		labels[key] = value
	}
	if len(labels) > maxLabels {
		return nil, fmt.Errorf("%d labels: at most %d", len(labels), maxLabels)
	}
	return labels, nil
}

// splitID takes what names a session off the beginning of s: a JSON object with its
// sid, as the command line prints it, or all up to the first colon.
func splitID(s string) (id, rest string, err error) {
	if !strings.HasPrefix(s, "{") {
		if i := strings.IndexByte(s, ':'); i >= 0 {
			return s[:i], s[i:], nil
		}
		return s, "", nil
	}
	var object struct {
		SID string `json:"sid"`
	}
	d := json.NewDecoder(strings.NewReader(s))
	if err := d.Decode(&object); err != nil || object.SID == "" {
		return "", "", fmt.Errorf("session %.80q: it looks like a JSON object, but has no sid", s)
	}
	return object.SID, strings.TrimLeft(s[d.InputOffset():], " \t\r\n"), nil
}

// SplitPath splits what names a file of a session: SID:PATH, where SID is anything
// that Open takes. It says so when s names none.
func SplitPath(s string) (id, path string, ok bool) {
	id, rest, err := splitID(s)
	if err != nil || id == "" || id == "." || strings.Contains(id, "/") || !strings.HasPrefix(rest, ":") {
		return "", s, false
	}
	return id, rest[1:], true
}

// Filter chooses sessions. What is empty chooses all.
type Filter struct {
	// Names are searched for any of these.
	Names []*regexp.Regexp
	// Labels are there, and have the value where one is given.
	Labels []string
	Images []string // any of these
	States []State  // any of these
}

// ParseFilter reads KEY=VALUE several times.
func ParseFilter(all []string) (f Filter, err error) {
	for _, s := range all {
		key, value, ok := strings.Cut(s, "=")
		if !ok || value == "" {
			return f, fmt.Errorf("filter %q: want KEY=VALUE, with a KEY of name, label, image and status", s)
		}
		switch key {
		case "name":
			r, err := regexp.Compile(value)
			if err != nil {
				return f, fmt.Errorf("filter %q: %w", s, err)
			}
			f.Names = append(f.Names, r)
		case "label":
			f.Labels = append(f.Labels, value)
		case "image":
			f.Images = append(f.Images, value)
		case "status":
			if !slices.Contains(states, State(value)) {
				return f, fmt.Errorf("filter %q: want one of %v", s, states)
			}
			f.States = append(f.States, State(value))
		default:
			return f, fmt.Errorf("filter %q: want a KEY of name, label, image and status", s)
		}
	}
	return f, nil
}

// Match says whether a session is chosen.
func (f *Filter) Match(s *Status) bool {
	if len(f.Names) > 0 && !slices.ContainsFunc(f.Names, func(r *regexp.Regexp) bool { return r.MatchString(s.Name) }) {
		return false
	}
	for _, l := range f.Labels {
		key, want, valued := strings.Cut(l, "=")
		if got, ok := s.Labels[key]; !ok || valued && got != want {
			return false
		}
	}
	return (len(f.Images) == 0 || slices.Contains(f.Images, s.Image)) && (len(f.States) == 0 || slices.Contains(f.States, s.State))
}

// errAmbiguous is wrapped when a beginning names several sessions.
var errAmbiguous = errors.New("several sessions begin with it; give more characters")
