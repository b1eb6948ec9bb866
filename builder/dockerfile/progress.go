package dockerfile

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/runtime/printable"
)

// Log prints how far a build is, as BuildKit does on what is not a terminal: each
// step has a number, before each of its lines.
type Log struct {
	mu   sync.Mutex
	w    io.Writer
	last *vertex // whose line was printed last
	next int
	// screen is where it is drawn instead of printed; nil: it is printed.
	screen *screen
}

// NewLog makes a log that prints to w.
func NewLog(w io.Writer) *Log { return &Log{w: w} }

// vertex is a step of a build.
type vertex struct {
	log    *Log
	number int
	name   string
	start  time.Time
	rest   []byte
	tail   []string             // its last lines
	told   map[string]time.Time // when the progress of something was printed last
	// What a screen shows of it.
	state string // "" while it runs, else DONE, CACHED or ERROR
	ended time.Time
	blobs []*blob
}

// blob is how much of one is fetched.
type blob struct{ item, text string }

const (
	tailLines = 30
	maxLine   = 4 << 10 // bytes of a line of output that has no end
)

// begin prints the name of a step.
func (l *Log) begin(format string, args ...any) *vertex {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	v := &vertex{log: l, number: l.next, name: oneLine(fmt.Sprintf(format, args...)), start: time.Now()}
	if l.screen != nil {
		l.screen.add(l, v)
	} else {
		l.print(v, v.name)
	}
	return v
}

// note prints a step that is over as it begins.
func (l *Log) note(format string, args ...any) {
	v := l.begin(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	v.state, v.ended = "DONE", v.start
}

// print prints a line of a step; l is locked.
func (l *Log) print(v *vertex, line string) {
	if l.last != nil && l.last != v {
		fmt.Fprintln(l.w)
	}
	if l.last != v && line != v.name {
		fmt.Fprintf(l.w, "#%d %s\n", v.number, v.name)
	}
	l.last = v
	fmt.Fprintf(l.w, "#%d %s\n", v.number, line)
}

// Write takes output of the step's command.
func (v *vertex) Write(p []byte) (int, error) {
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	v.rest = append(v.rest, p...)
	for {
		end := bytes.IndexByte(v.rest, '\n')
		if end < 0 && len(v.rest) < maxLine {
			return len(p), nil
		}
		skip := 1
		if end < 0 {
			end, skip = maxLine, 0
		}
		v.line(v.rest[:end])
		v.rest = append(v.rest[:0], v.rest[end+skip:]...)
	}
}

// line prints a line of output. What a carriage return has overwritten is not
// shown.
func (v *vertex) line(b []byte) {
	b = bytes.TrimRight(b, "\r")
	if i := bytes.LastIndexByte(b, '\r'); i >= 0 {
		b = b[i+1:]
	}
	line := fmt.Sprintf("%.3f %s", time.Since(v.start).Seconds(), printable.Line(string(b)))
	if v.log.screen != nil {
		v.tail = append(v.tail, line)
		v.tail = v.tail[max(0, len(v.tail)-tailLines):]
		return
	}
	if v.tail = append(v.tail, line); len(v.tail) > tailLines {
		v.tail = v.tail[1:]
	}
	v.log.print(v, line)
}

func (v *vertex) end(state, format string, args ...any) {
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	if len(v.rest) > 0 {
		v.line(v.rest)
		v.rest = nil
	}
	v.state, v.ended = state, time.Now()
	if v.log.screen != nil {
		return
	}
	v.log.print(v, fmt.Sprintf(format, args...))
}

// fetching prints how much of a blob is fetched, now and then.
func (v *vertex) fetching(p builder.Progress) {
	if p.Step != "fetch" {
		return
	}
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	if v.log.screen != nil {
		v.fetchingOnScreen(p)
		return
	}
	last, begun := v.told[p.Item]
	if begun && p.Done < p.Total && time.Since(last) < progressPause || last.Equal(complete) {
		return
	}
	if v.told == nil {
		v.told = map[string]time.Time{}
	}
	v.told[p.Item] = time.Now()
	if p.Done >= p.Total {
		v.told[p.Item] = complete
	}
	v.log.print(v, fmt.Sprintf("%s %.1fMB / %.1fMB %.1fs", printable.Line(p.Item), float64(p.Done)/(1<<20), float64(p.Total)/(1<<20), time.Since(v.start).Seconds()))
}

// fetchingOnScreen remembers how much of a blob is fetched; the log is locked.
func (v *vertex) fetchingOnScreen(p builder.Progress) {
	i := slices.IndexFunc(v.blobs, func(b *blob) bool { return b.item == p.Item })
	if i < 0 {
		i = len(v.blobs)
		v.blobs = append(v.blobs, &blob{item: p.Item})
	}
	v.blobs[i].text = fmt.Sprintf("%s %.1fMB / %.1fMB", printable.Line(p.Item), float64(p.Done)/(1<<20), float64(p.Total)/(1<<20))
}

// progressPause is the least time between two lines about one blob.
const progressPause = 2 * time.Second

// complete stands for a blob of which there is no more to say.
var complete = time.Unix(0, 0)

func (v *vertex) done()   { v.end("DONE", "DONE %.1fs", time.Since(v.start).Seconds()) }
func (v *vertex) cached() { v.end("CACHED", "CACHED") }

// oneLine is a step in one line: a tab that indents a continued line is a blank.
func oneLine(s string) string { return printable.Line(strings.ReplaceAll(s, "\t", " ")) }

func (v *vertex) failed(err error) { v.end("ERROR", "ERROR: %s", printable.Line(err.Error())) }

// failure prints once more what a step said last, and its lines of the
// Dockerfile.
func (l *Log) failure(v *vertex, excerpt string) {
	l.Close() // it is not drawn over
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "------\n > %s:\n", v.name)
	for _, line := range v.tail {
		fmt.Fprintln(l.w, line)
	}
	fmt.Fprintf(l.w, "------\n%s", printable.Lines(excerpt))
}
