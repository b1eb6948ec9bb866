package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder"
)

// terminal does what a terminal does with what is drawn: it keeps its lines.
type terminal struct {
	lines []string
	row   int
}

var control = regexp.MustCompile(`^\x1b\[([0-9]*)([A-Z])`)

func (s *terminal) Write(p []byte) (int, error) {
	text := p
	for len(p) > 0 {
		if m := control.FindSubmatch(p); m != nil {
			n, _ := strconv.Atoi(string(m[1]))
			switch m[2][0] {
			case 'A':
				s.row -= n
			case 'K':
				s.line("")
			case 'J':
				s.lines = s.lines[:min(len(s.lines), s.row)]
			}
			p = p[len(m[0]):]
			continue
		}
		end := bytes.IndexByte(p, '\n')
		s.line(string(p[:end]))
		s.row++
		p = p[end+1:]
	}
	return len(text), nil
}

func (s *terminal) line(text string) {
	if s.row < 0 {
		panic("drawn above the beginning")
	}
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, "")
	}
	s.lines[s.row] = text
}

var seconds = regexp.MustCompile(`[0-9]+\.[0-9]+s?`)

// On a terminal each step has a line, and what runs shows what it says last; what is
// hostile in it is shown, not done.
func TestScreen(t *testing.T) {
	var shown terminal
	size := 20
	l := NewTerminalLog(&shown, func() (int, int) { return 40, size })
	draw := func() string {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.screen.draw()
		return seconds.ReplaceAllString(strings.Join(shown.lines, "\n"), "N")
	}
	first := l.begin("[1/3] FROM debian")
	first.fetching(builder.Progress{Step: "fetch", Item: "sha256:1", Done: 1 << 20, Total: 3 << 20})
	if got, want := draw(), "[+] Building N (0/1)\n => [1/3] FROM debian               N\n => => sha256:1 NMB / NMB"; got != want {
		t.Errorf("fetching:\n%s\nwant\n%s", got, want)
	}
	first.cached()
	second := l.begin("[2/3] RUN a command\twhose line is longer than the terminal is wide")
	for n := range 9 {
		fmt.Fprintf(second, "line %d \x1b[2J\n", n)
	}
	got := draw()
	want := "[+] Building N (1/2)\n => CACHED [1/3] FROM debian        N\n => [2/3] RUN a command whose line… N\n"
	if !strings.HasPrefix(got, want) || strings.Contains(got, "line 2") || !strings.Contains(got, " => => # N line 8") || strings.Contains(got, "\x1b") {
		t.Errorf("running:\n%s\nwant\n%s", got, want)
	}
	for n, line := range strings.Split(got, "\n") {
		if r := []rune(line); len(r) > 40 {
			t.Errorf("line %d has %d characters", n, len(r))
		}
	}
	// A low terminal shows what runs, not what is done.
	size = 6
	if got := draw(); strings.Contains(got, "FROM debian") || strings.Count(got, "\n") > 4 {
		t.Errorf("on a low terminal:\n%s", got)
	}
	size = 20
	// Somebody else has the terminal for a while.
	release := l.hold()
	before := len(shown.lines)
	second.failed(errors.New("it failed"))
	if draw(); len(shown.lines) != before {
		t.Error("drawn while the terminal was another's")
	}
	release()
	l.failure(second, "Dockerfile:2\n")
	if got := seconds.ReplaceAllString(strings.Join(shown.lines, "\n"), "N"); !strings.Contains(got, "(2/2) FINISHED\n") || !strings.HasSuffix(got, "Dockerfile:2") || !strings.Contains(got, " => ERROR [2/3] RUN") {
		t.Errorf("at the end:\n%s", got)
	}
	l.Close() // again
}
