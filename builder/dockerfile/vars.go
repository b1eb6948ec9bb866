package dockerfile

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
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

// maxExpanded is how much text the variables of a build may become, in bytes: with ten
// lines, each of which has the one before ten times, they would fill any memory.
const maxExpanded = 8 << 20

// expand replaces variables in a word.
func (b *build) expand(lex *shell.Lex, word string, env environ) (string, error) {
	values := b.bounded(word, env)
	s, err := expandWord(lex, word, values)
	return s, cmp.Or(b.spend(values, len(s)), err)
}

// bounded are variables in a word that do not become more than there is room for.
type bounded struct {
	shell.EnvGetter
	word       int // its length
	patterns   int // how many patterns can be in each other
	spent      int // bytes of values
	multiplied int // of what one pattern makes of each
	room       int
	over       bool
}

var (
	pattern  = regexp.MustCompile(`\$\{(?:[@*#?$!0-]|[\pL\pN_]*)[/#%]`)
	replaced = regexp.MustCompile(`^\$\{(?:[@*#?$!0-]|[\pL\pN_]*)//`)
)

func (b *build) bounded(word string, env environ) *bounded {
	v := &bounded{EnvGetter: shell.EnvsFromSlice(env), word: len(word), room: int(maxExpanded - b.expanded.Load())}
	if pattern.MatchString(word) {
		v.patterns = max(depth(word), 1)
	}
	return v
}

// depth is how many replacements of all of a pattern, ${name//pattern/text}, may be in each
// other. Where a quote or an escape may hide an end, it is their number.
func depth(word string) (deepest int) {
	all, now := 0, 0
	var open []bool // of each brace, whether it is such a replacement
	hidden := false
	for i := 0; i < len(word); i++ {
		switch c := word[i]; {
		case c == '$' && strings.HasPrefix(word[i:], "${"):
			is := replaced.MatchString(word[i:])
			if open = append(open, is); is {
				all, now = all+1, now+1
				deepest = max(deepest, now)
			}
		case c == '}' && len(open) > 0:
			if open[len(open)-1] {
				now--
			}
			open = open[:len(open)-1]
		case len(open) > 0 && strings.IndexByte("'\"\\`", c) >= 0:
			hidden = true
		}
	}
	if hidden {
		return all
	}
	return deepest
}

// Get is part of [shell.EnvGetter].
func (v *bounded) Get(name string) (string, bool) {
	value, ok := v.EnvGetter.Get(name)
	if v.over {
		return "", ok
	}
	// A replacement, or a pattern, has been read before the value that it is for.
	v.multiplied += (len(value) + 1) * (v.word + v.spent)
	v.spent += len(value)
	cost := v.spent
	switch {
	case v.patterns == 1:
		cost = v.multiplied
	case v.patterns > 1:
		cost += v.word
		for n := 0; n < v.patterns && cost <= v.room; n++ {
			cost *= v.spent + 1
		}
	}
	if v.over = cost > v.room; v.over {
		return "", ok
	}
	return value, ok
}

// spend counts what a word has become.
func (b *build) spend(v *bounded, size int) error {
	if v.spent == 0 {
		return nil
	}
	if b.expanded.Add(int64(max(v.spent, size))) > maxExpanded || v.over {
		return fmt.Errorf("variables become more than %d MB of text", maxExpanded>>20)
	}
	return nil
}

func expandWord(lex *shell.Lex, word string, env shell.EnvGetter) (string, error) {
	if err := checkWord(word); err != nil {
		return "", err
	}
	s, _, err := lex.ProcessWord(word, env)
	return s, wordError(word, err)
}

// maxDepth bounds the variables in the defaults of variables: BuildKit's package calls
// itself for each.
const maxDepth = 1000

// checkWord refuses what BuildKit's package would read as another word.
func checkWord(word string) error {
	if !utf8.ValidString(word) {
		return fmt.Errorf("%s is not UTF-8", excerptOf(word))
	}
	if strings.Count(word, "${") > maxDepth {
		return fmt.Errorf("%s has more than %d variables", excerptOf(word), maxDepth)
	}
	return nil
}

// clearer replaces the messages of BuildKit's package that take the end of a word for a
// character of it.
var clearer = strings.NewReplacer(
	"unsupported modifier (\uFFFD) in substitution", "syntax error: missing '}'",
	"unsupported modifier (\") in substitution", "syntax error: missing '}'",
	"unsupported modifier (\n) in substitution", "syntax error: missing '}'",
	"invalid escape '\\\uFFFD'", "it ends with an escape",
)

// wordError is an error of BuildKit's package about a word, in one line.
func wordError(word string, err error) error {
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), fmt.Sprintf("failed to process %q: ", word))
	return fmt.Errorf("failed to process %s: %s", excerptOf(word), clearer.Replace(text))
}

// excerptOf quotes a word for a message.
func excerptOf(word string) string {
	const most = 200
	if len(word) > most {
		return fmt.Sprintf("%q...", word[:most])
	}
	return fmt.Sprintf("%q", word)
}

// anyValue are variables that all have one: what is wrong with a word then is wrong with
// its syntax.
type anyValue struct{}

func (anyValue) Get(string) (string, bool) { return "x", true }
func (anyValue) Keys() []string            { return nil }

// checkSyntax finds words of an instruction that cannot be expanded, whatever values its
// variables get.
func (f *File) checkSyntax(c instructions.Command) (bad error) {
	check := func(lex *shell.Lex) instructions.SingleWordExpander {
		return func(word string) (string, error) {
			if _, err := expandWord(lex, word, anyValue{}); bad == nil {
				bad = err
			}
			return word, nil
		}
	}
	word := check(f.lex())
	var err error
	switch c := c.(type) {
	case *instructions.RunCommand:
		_ = c.Expand(word) // refusal says what else is wrong with its mounts
	case *instructions.ExposeCommand:
		for _, p := range c.Ports {
			_, _ = word(p)
		}
	case instructions.SupportsSingleWordExpansion:
		err = c.Expand(word)
	}
	if x, ok := c.(instructions.SupportsSingleWordExpansionRaw); ok && err == nil {
		err = x.ExpandRaw(check(rawLex()))
	}
	return cmp.Or(bad, err)
}

// lex reads a word of an instruction.
func (f *File) lex() *shell.Lex { return shell.NewLex(f.escape) }

// rawLex reads the text of a heredoc, where quotes mean nothing.
func rawLex() *shell.Lex {
	lex := shell.NewLex('\\')
	lex.SkipProcessQuotes = true
	return lex
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
