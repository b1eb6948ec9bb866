// Package strictyaml reads YAML that people write into a Go type. What does not fit
// the type is an error in plain words: the line, the field, what is expected there, and
// what is there.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/abdul-abdi/lumina/builder/spelling"
)

// Error is what is wrong with a document.
type Error struct {
	Line    int // from 1
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// Read reads the one document of text into a struct, whose fields have yaml tags. A
// field that the struct does not have is an error, and so is one that comes twice.
// The error is an [*Error].
func Read(text []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &Error{1, "it is empty"}
	case err != nil:
		return syntaxError(text, err)
	}
	switch err := d.Decode(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return syntaxError(text, err)
	default:
		return &Error{more.Line, "a second document begins here, which nobody would read; remove the line ---"}
	}
	if doc.Content[0].ShortTag() == "!!null" {
		return &Error{1, "it is empty"}
	}
	var c checker
	if err := c.value(doc.Content[0], reflect.TypeOf(into).Elem(), ""); err != nil {
		return err
	}
	if err := doc.Decode(into); err != nil {
		return syntaxError(text, err)
	}
	return nil
}

// maxAliased bounds the values that aliases stand for: a few lines of them can stand
// for more than a computer has memory.
const maxAliased = 10_000

// checker compares a document with a type.
type checker struct {
	aliased int          // values that aliases stand for
	within  []*yaml.Node // the aliases around the value
}

// value says what is wrong with a value; at names its field.
func (c *checker) value(n *yaml.Node, t reflect.Type, at string) error {
	if len(c.within) > 0 {
		if c.aliased++; c.aliased > maxAliased {
			return &Error{c.within[0].Line, fmt.Sprintf("the aliases, such as *%s, stand for more than %d values", c.within[0].Value, maxAliased)}
		}
	}
	if n.Kind == yaml.AliasNode {
		if slices.ContainsFunc(c.within, func(a *yaml.Node) bool { return a.Alias == n.Alias }) {
			return &Error{n.Line, fmt.Sprintf("%s: *%s stands for itself", at, n.Value)}
		}
		c.within = append(c.within, n)
		err := c.value(n.Alias, t, at)
		c.within = c.within[:len(c.within)-1]
		return err
	}
	if n.ShortTag() == "!!null" {
		return nil // as if it were not there
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		if n.Kind != yaml.MappingNode {
			return wrong(n, at, wantFields(t))
		}
		return c.fields(n, t, at)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return wrong(n, at, "a list, such as [a, b]")
		}
		for i, item := range n.Content {
			name := fmt.Sprintf("%s[%d]", at, i)
			if item.ShortTag() == "!!null" { // the decoder would leave it out
				return &Error{item.Line, name + ": it is empty"}
			}
			if err := c.value(item, t.Elem(), name); err != nil {
				return err
			}
		}
		return nil
	}
	number := t.Kind() == reflect.Int
	if n.Kind == yaml.ScalarNode && (!number || n.ShortTag() == "!!int") && n.Decode(reflect.New(t).Interface()) == nil {
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		if n.Kind != yaml.ScalarNode {
			return wrong(n, at, `text; what has ": " in it, or begins with [, { or -, goes into quotes`)
		}
		return wrong(n, at, "text")
	case reflect.Bool:
		return wrong(n, at, "true or false")
	default:
		return wrong(n, at, "a whole number")
	}
}

// fields says what is wrong with the fields of a struct or a map.
func (c *checker) fields(n *yaml.Node, t reflect.Type, at string) error {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.ShortTag() == "!!merge" {
			if err := c.merge(value, t, at); err != nil {
				return err
			}
			continue
		}
		if key.Kind != yaml.ScalarNode {
			return &Error{key.Line, inside(at, "the name of a field is not text")}
		}
		name := join(at, key.Value)
		if line, is := seen[key.Value]; is {
			return &Error{key.Line, fmt.Sprintf("%s: it is given twice, first on line %d", name, line)}
		}
		seen[key.Value] = key.Line
		want := reflect.Type(nil)
		if t.Kind() == reflect.Map {
			want = t.Elem()
		} else if want = fieldType(t, key.Value); want == nil {
			return &Error{key.Line, name + ": there is no such field; " + meant(key.Value, t)}
		}
		if err := c.value(value, want, name); err != nil {
			return err
		}
	}
	return nil
}

// merge says what is wrong with what << brings in: the fields of another map, or of
// several.
func (c *checker) merge(n *yaml.Node, t reflect.Type, at string) error {
	if n.Kind == yaml.SequenceNode {
		for _, one := range n.Content {
			if err := c.merge(one, t, at); err != nil {
				return err
			}
		}
		return nil
	}
	to := n
	if n.Kind == yaml.AliasNode {
		to = n.Alias
	}
	if to.Kind != yaml.MappingNode {
		return wrong(n, join(at, "<<"), wantFields(t))
	}
	return c.value(n, t, at)
}

func wrong(n *yaml.Node, at, want string) error {
	return &Error{n.Line, inside(at, "want "+want+"; "+what(n))}
}

func wantFields(t reflect.Type) string {
	if t.Kind() == reflect.Map {
		return "names with values, such as {NAME: value}"
	}
	return "fields: " + strings.Join(names(t), ", ")
}

// what says what a value is.
func what(n *yaml.Node) string {
	const most = 40
	text := n.Value
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	switch n.Kind {
	case yaml.SequenceNode:
		return "it is a list"
	case yaml.MappingNode:
		return "it has fields"
	case yaml.AliasNode:
		return what(n.Alias)
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "it is the number " + strconv.Quote(text)
	case "!!bool":
		return "it is " + strconv.Quote(text)
	}
	return "it is the text " + strconv.Quote(text)
}

// names are the fields of a struct.
func names(t reflect.Type) (all []string) {
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "" && name != "-" {
			all = append(all, name)
		}
	}
	return all
}

func fieldType(t reflect.Type, name string) reflect.Type {
	for i := range t.NumField() {
		if tag, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); tag == name && tag != "-" && tag != "" {
			return t.Field(i).Type
		}
	}
	return nil
}

// meant says which field may be meant, or which there are.
func meant(name string, t reflect.Type) string {
	all := names(t)
	for _, known := range all {
		if spelling.Distance(strings.ToLower(name), known) <= 1+len(known)/5 {
			return fmt.Sprintf("%q may be meant", known)
		}
	}
	return "there are " + strings.Join(all, ", ")
}

func join(at, name string) string {
	name = quoted(name)
	if at == "" {
		return name
	}
	return at + "." + name
}

// quoted is a name as errors write it: one that is not of the usual letters in quotes.
func quoted(name string) string {
	const most = 80
	if r := []rune(name); len(r) > most {
		name = string(r[:most]) + "…"
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == '"' || c == ':' || !strconv.IsPrint(c) }) {
		return strconv.Quote(name)
	}
	return name
}

func inside(at, message string) string {
	if at == "" {
		return message
	}
	return at + ": " + message
}
