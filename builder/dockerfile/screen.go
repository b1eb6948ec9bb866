package dockerfile

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// screen shows how far a build is on a terminal, as BuildKit does there: a line for
// each step, which is drawn anew, and below those that run what they say.
type screen struct {
	w    io.Writer
	size func() (width, height int)
	// began is when the build did.
	began time.Time
	steps []*vertex
	drawn int // lines that are to be drawn over
	still bool
	stop  chan struct{} // ends the drawing; nil: it has ended
	done  sync.WaitGroup
}

const (
	drawPause = 100 * time.Millisecond
	// runningLines are how many lines of output of a step that runs are shown.
	runningLines = 6
)

// NewTerminalLog makes a log that is drawn on a terminal of that size, until Close.
func NewTerminalLog(w io.Writer, size func() (width, height int)) *Log {
	return &Log{w: w, screen: &screen{w: w, size: size}}
}

// Close draws the end. A log that is not a terminal's has none.
func (l *Log) Close() {
	if l.screen == nil {
		return
	}
	l.mu.Lock()
	stop := l.screen.stop
	l.screen.stop = nil
	l.mu.Unlock()
	if stop == nil {
		return
	}
	close(stop)
	l.screen.done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.screen.draw()
	l.screen.drawn = 0
}

// hold leaves the terminal to somebody else until release is called.
func (l *Log) hold() (release func()) {
	if l.screen == nil {
		return func() {}
	}
	set := func(still bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.screen.draw()
		l.screen.still, l.screen.drawn = still, 0
	}
	set(true)
	return func() { set(false) }
}

// add shows one more step; the log is locked.
func (s *screen) add(l *Log, v *vertex) {
	if s.began.IsZero() {
		s.began = v.start
	}
	s.steps = append(s.steps, v)
	if s.stop != nil {
		return
	}
	s.stop = make(chan struct{})
	stop := s.stop
	s.done.Go(func() {
		tick := time.NewTicker(drawPause)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				l.mu.Lock()
				s.draw()
				l.mu.Unlock()
			}
		}
	})
}

// draw draws over what was drawn; the log is locked.
func (s *screen) draw() {
	if s.still {
		return
	}
	width, height := s.size()
	lines := s.lines(max(width, 20), max(height-1, 5))
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	for _, line := range lines {
		b.WriteString("\x1b[2K" + line + "\n")
	}
	b.WriteString("\x1b[J")
	s.drawn = len(lines)
	_, _ = io.WriteString(s.w, b.String())
}

func (s *screen) lines(width, height int) []string {
	finished := 0
	for _, v := range s.steps {
		if v.state != "" {
			finished++
		}
	}
	head := fmt.Sprintf("[+] Building %.1fs (%d/%d)", time.Since(s.began).Seconds(), finished, len(s.steps))
	if s.stop == nil {
		head += " FINISHED"
	}
	var parts [][]string
	total := 1
	for _, v := range s.steps {
		part := v.lines(width)
		parts = append(parts, part)
		total += len(part)
	}
	// What is done gives way to what is not.
	for i, v := range s.steps {
		if total > height && v.state != "" && v.state != "ERROR" {
			total -= len(parts[i])
			parts[i] = nil
		}
	}
	lines := []string{cut(head, width)}
	for _, part := range parts {
		lines = append(lines, part...)
	}
	return lines[:min(len(lines), height)]
}

// lines are those of a step.
func (v *vertex) lines(width int) []string {
	name, took := v.name, time.Since(v.start)
	if v.state != "" {
		took = v.ended.Sub(v.start)
		if v.state != "DONE" {
			name = v.state + " " + name
		}
	}
	after := fmt.Sprintf(" %.1fs", took.Seconds())
	line := cut(" => "+name, width-len(after))
	line += strings.Repeat(" ", width-len(after)-utf8.RuneCountInString(line)) + after
	lines := []string{line}
	if v.state != "" {
		return lines
	}
	for _, blob := range v.blobs {
		lines = append(lines, cut(" => => "+blob.text, width))
	}
	for _, said := range v.tail[max(0, len(v.tail)-runningLines):] {
		lines = append(lines, cut(" => => # "+said, width))
	}
	return lines
}

// cut makes a line fit.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	r := []rune(s)
	return string(r[:max(width-1, 0)]) + "…"
}
