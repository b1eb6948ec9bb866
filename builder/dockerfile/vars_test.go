package dockerfile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// notExpanded are words that cannot be expanded, with what is said of them.
var notExpanded = []struct{ word, want string }{
	{"${X", `"${X": syntax error: missing '}'`},
	{"${", `"${": syntax error: missing '}'`},
	{"${X:", `"${X:": syntax error: missing '}'`},
	{"${X:-a", `"${X:-a": syntax error: missing '}'`},
	{"${X#a", `"${X#a": syntax error: missing '}'`},
	{"${X/a/b", `"${X/a/b": syntax error: missing '}'`},
	{"${X/a", `"${X/a": syntax error: missing '/' in ${}`},
	{"${X:-${Y}", `"${X:-${Y}": syntax error: missing '}'`},
	{"${}", `"${}": syntax error: bad substitution`},
	{"${X!y}", `"${X!y}": unsupported modifier (!) in substitution`},
	{"${X:#y}", `"${X:#y}": unsupported modifier (:#) in substitution`},
}

// A word that cannot be expanded is refused, with its line, before the base is asked for,
// by each instruction that expands words.
func TestNotExpanded(t *testing.T) {
	b := newBench(t)
	refused := func(t *testing.T, text, want string) {
		t.Helper()
		_, err := b.build(t, "made", text)
		if err == nil || !strings.HasPrefix(strings.TrimPrefix(err.Error(), `creating image "made": `), want) {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
	for _, tt := range notExpanded {
		refused(t, "FROM nowhere.test/x\nENV A="+tt.word, "Dockerfile:2: failed to process "+tt.want)
	}
	for _, line := range []string{"ENV A ", "ENV A=1 B=", "LABEL a=", "ARG A=", "WORKDIR /", "USER ", "EXPOSE ", "VOLUME /", "STOPSIGNAL ",
		"COPY a.txt /", "COPY --chown=${Y a.txt /", "COPY --chmod=${Y a.txt /", "ADD --checksum=${Y https://x.test/y /", "ADD a.txt /",
		"RUN --mount=type=cache,target=/${Y true\nENV A="} {
		word := line
		if !strings.Contains(line, "${Y") {
			word += "${X"
		}
		_, err := b.build(t, "made", "FROM nowhere.test/x\n"+word)
		if err == nil || !strings.HasPrefix(err.Error(), "Dockerfile:2: failed to process ") || !strings.HasSuffix(err.Error(), ": syntax error: missing '}'") {
			t.Errorf("%s: error %v", word, err)
		}
	}
	refused(t, "FROM nowhere.test/x\nENV A=\"${X\"", `Dockerfile:2: failed to process "\"${X\"": syntax error: missing '}'`)
	refused(t, "FROM nowhere.test/x\nENV A='x", `Dockerfile:2: failed to process "'x": unexpected end of statement while looking for matching single-quote`)
	refused(t, "FROM nowhere.test/x\nENV A=\"x", `Dockerfile:2: failed to process "\"x": unexpected end of statement while looking for matching double-quote`)
	refused(t, "FROM nowhere.test/x\n\nCOPY <<E /x\n${X\nE", `Dockerfile:3: failed to process "${X\n": syntax error: missing '}'`)
	refused(t, "ARG A=${X\nFROM scratch", `Dockerfile:1: failed to process "${X": syntax error: missing '}'`)
	refused(t, "FROM scratch AS a\nFROM ${X", `Dockerfile:2: failed to process "${X": syntax error: missing '}'`)
	refused(t, "FROM --platform=${X scratch", `Dockerfile:1: failed to process "${X": syntax error: missing '}'`)
	refused(t, "# escape=`\nFROM scratch\nENV A=\\${X", `Dockerfile:3: failed to process "\\${X": syntax error: missing '}'`)
	refused(t, "FROM nowhere.test/x\nENV A="+strings.Repeat("${X:-", 2000)+strings.Repeat("}", 2000), "Dockerfile:2: \"${X:-")
	refused(t, "FROM nowhere.test/x\nCOPY <<E /x\na\xff\nE", `Dockerfile:2: "a\xff\n" is not UTF-8`)
	// What depends on values is known when it comes to it.
	refused(t, "FROM scratch\nENV A=${X:?wanted}", `Dockerfile:2: failed to process "${X:?wanted}": X: wanted`)
	refused(t, "FROM scratch\nENV P='a\\'\nENV A=${P#$P}", `Dockerfile:3: failed to process "${P#$P}": invalid pattern (a\) in substitution: it ends with an escape`)
	// A base's instruction is named: its line is not of this file.
	if _, err := b.build(t, "base", "FROM scratch\nCOPY a.txt /\nONBUILD ENV A=${X"); err != nil {
		t.Fatal(err)
	}
	refused(t, "# a comment\nFROM base", `Dockerfile:2: ONBUILD ENV A=${X: failed to process "${X": syntax error: missing '}'`)
}

// What is escaped or has no value is what BuildKit makes of it.
func TestExpanded(t *testing.T) {
	b := newBench(t)
	const text = "FROM scratch\nENV P=/a/b.c.d\n" +
		`ENV A=\${X B="\${X" C='${X' D=$ E=a\ b F=${P##*/} G=${P%%.*} H=${P//b/x} I=${X:-${Y:-"z }"}} J=${X-} K=${P:+y} L="a\"b" M=\'`
	img, err := b.build(t, "made", text)
	want := []string{"P=/a/b.c.d", "A=${X", "B=${X", "C=${X", "D=$", "E=a b", "F=b.c.d", "G=/a/b", "H=/a/x.c.d", "I=z }", "J=", "K=y", `L=a"b`, "M='"}
	if err != nil || !cmp.Equal(want, img.Config.Env[1:]) {
		t.Fatalf("error %v, %s", err, cmp.Diff(want, img.Config.Env[1:]))
	}
}

// A few lines, of a base's ONBUILD, too, do not fill the memory with what their variables
// become; what people write is not refused.
func TestVariablesThatGrow(t *testing.T) {
	b := newBench(t)
	times := func(instruction string) string {
		text := instruction + " a0=" + strings.Repeat("x", 32) + "\n"
		for i := range 6 {
			text += fmt.Sprintf("%s a%d=%s\n", instruction, i+1, strings.Repeat(fmt.Sprintf("$a%d", i), 10))
		}
		return text
	}
	long := strings.Repeat("a ", 3000)
	for _, tt := range []struct{ name, text, want string }{
		{"ENV", "FROM scratch\n" + times("ENV"), "Dockerfile:8: "},
		{"ARG", "FROM scratch\n" + times("ARG"), "Dockerfile:8: "},
		{"ARG before FROM", times("ARG") + "FROM scratch", "Dockerfile:7: "},
		{"a heredoc", "FROM scratch\nENV a=" + strings.Repeat("x", 60000) + "\nCOPY <<E /x\n" + strings.Repeat("$a\n", 150) + "E", "Dockerfile:3: "},
		{"EXPOSE", "FROM scratch\nENV a=" + strings.Repeat("1", 60000) + "\nEXPOSE " + strings.Repeat("$a", 150), "Dockerfile:3: "},
		{"ports", "FROM scratch\nEXPOSE " + strings.Repeat("1-65535 ", 5), "Dockerfile:2: EXPOSE has more than"},
		{"a replacement", "FROM scratch\nENV a=" + strings.Repeat("a", 20000) + "\nENV b=${a//a/" + strings.Repeat("b", 900) + "}", "Dockerfile:3: "},
		{"a replacement in one", "FROM scratch\nENV a=" + strings.Repeat("a", 300) + "\nENV b=${a//a/${a//a/${a//a/xx}}}", "Dockerfile:3: "},
		{"one whose end is hidden", "FROM scratch\nENV a=" + strings.Repeat("a", 300) + "\nENV b=${a//a/'}'${a//a/\\}${a//a/xx}}}", "Dockerfile:3: "},
		{"what people write", "FROM scratch\nENV V=1.22.333 L=\"" + long + "\" E=\nENV U=\"https://x.test/${V//./_}/${V//./-}/${V//./}/${V//./+}/${V//./,}/${V//./:}/${V//./=}/${V//./%}/x-${V%.*}.tgz\" M=\"${L// /,}\" N=${E:-${V//./-}}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := b.build(t, "made", tt.text)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "more than")) {
				t.Errorf("error %v, want %s…", err, tt.want)
			}
		})
	}
	if _, err := b.build(t, "grows", "FROM scratch\nCOPY a.txt /\nONBUILD ENV a="+strings.Repeat("x", 60000)+"\nONBUILD ENV b="+strings.Repeat("$a", 150)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.build(t, "made", "FROM grows"); err == nil || !strings.Contains(err.Error(), "more than 8 MB") {
		t.Errorf("ONBUILD of a base: error %v", err)
	}
}

// Ports are checked without a list of each: a check hears no signal.
func TestPortsAreCheckedAsRanges(t *testing.T) {
	f, err := Parse(strings.NewReader("FROM scratch\n"+strings.Repeat("EXPOSE 1-65535\n", 20)), "Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	made := testing.AllocsPerRun(1, func() {
		if err := Check(Options{File: f}, "amd64"); err != nil {
			t.Error(err)
		}
	})
	if made > 50_000 {
		t.Errorf("checking 20 instructions makes %.0f objects", made)
	}
}
