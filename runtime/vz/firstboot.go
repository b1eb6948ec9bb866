package vz

import (
	"bytes"
	"errors"
	"regexp"
	"strconv"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// A guest that resets starts again in the same machine, and the framework does not report
// it. Once the agent is up, a second greeting shows it; until then, the console does.
const (
	// panicText is what a kernel says that panics. One that resets in order says so when
	// its virtio console is gone already.
	panicText = "Kernel panic - not syncing"
	// beginsText is what the guest's init says once, first.
	beginsText = "lumina-init-begins"
)

// consoleParameters have the guest tell its boots apart: its init by a word, and its
// kernel, which is to be quiet, by notices, until init has it be quiet again.
var consoleParameters = " loglevel=6 " + protocol.ParamLogLevel.Is("4") + " " + protocol.ParamBegins.Is(beginsText)

// firstBoot reads the console of a guest until its agent is up. Later output is not
// looked at. A guest that fakes such lines before that only ends itself.
type firstBoot struct {
	panics, begins finder
	echoes         finder // of the parameter, when the kernel prints its command line
	expected       int    // times that an init may begin
	told           bool   // one has
	line           []byte
	clock          clock
}

// newFirstBoot is for a machine that boots, or for one that is restored.
func newFirstBoot(restored bool) *firstBoot {
	b := &firstBoot{panics: finder{text: panicText}, begins: finder{text: beginsText}, echoes: finder{text: protocol.ParamBegins.Is(beginsText)}, expected: 1}
	if restored {
		b.expected = 0
	}
	return b
}

var (
	errPanic  = errors.New("the guest's kernel panicked")
	errSecond = errors.New("the guest reset before its agent was up")
)

// see says why the boot has failed, if it has.
func (b *firstBoot) see(p []byte) error {
	if b.panics.count(p) > 0 {
		return errPanic
	}
	if n := b.begins.count(p) - b.echoes.count(p); n > 0 {
		b.told = true
		if b.expected -= n; b.expected < 0 {
			return errSecond
		}
	}
	for len(p) > 0 {
		part, rest, whole := bytes.Cut(p, []byte{'\n'})
		b.line = append(b.line, part[:min(len(part), maxLine-len(b.line))]...)
		if whole {
			// Of an init that has told of itself the next one tells, too.
			if !b.told && b.clock.turnedBack(b.line) {
				return errSecond
			}
			b.line = b.line[:0]
		}
		p = rest
	}
	return nil
}

// What is looked at of a line, in bytes, and how many lines are known again.
const (
	maxLine      = 256
	maxLinesSeen = 256
)

// kernelLine is one with the time since the boot.
var kernelLine = regexp.MustCompile(`\[ *(\d{1,9})\.(\d{6})\] ([^\r\n]+)`)

// clock is a kernel's, as its lines have it. It tells of the boots of every kernel, and
// so of those whose init says nothing or does not begin: but of a boot that is much slower
// than the one before it, only with the next.
type clock struct {
	seen   map[string]bool
	latest int64 // microseconds
}

// outOfOrder is by how many microseconds a line may be before its neighbour: of another
// CPU, or by another clock, which a kernel changes over to while it looks for a good one.
const outOfOrder = 50_000

// turnedBack says whether a line has been there before, and the time was later.
func (c *clock) turnedBack(line []byte) bool {
	m := kernelLine.FindSubmatch(line)
	if m == nil {
		return false
	}
	at, err := strconv.ParseInt(string(m[1])+string(m[2]), 10, 64)
	if err != nil || at == 0 { // 0: the clock does not run yet, or is being changed
		return false
	}
	if at < c.latest-outOfOrder && c.seen[string(m[3])] {
		return true
	}
	if c.seen == nil {
		c.seen = map[string]bool{}
	}
	if len(c.seen) < maxLinesSeen {
		c.seen[string(m[3])] = true
	}
	c.latest = max(c.latest, at)
	return false
}

// finder finds a text in what comes piece by piece.
type finder struct {
	text string
	tail []byte // of what came, less than the text
}

// count says how often the text ended in a piece.
func (f *finder) count(p []byte) int {
	all := append(f.tail, p...)
	n := bytes.Count(all, []byte(f.text))
	f.tail = append([]byte(nil), all[max(0, len(all)-len(f.text)+1):]...)
	return n
}

// watchBoot ends the machine when its guest's boot has failed.
func (m *machine) watchBoot(b *firstBoot) func(p []byte) {
	return func(p []byte) {
		select {
		case <-m.ready:
			return
		default:
		}
		if err := b.see(p); err != nil {
			m.fail(err)
		}
	}
}
