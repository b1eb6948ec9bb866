package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/coder/websocket"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/session"
)

// Terminal is a terminal in a session. It belongs to the app, not to a page: one that is
// loaded again, or loses its connection, joins it where it was.
type Terminal struct {
	ID    string `json:"id"`
	SID   string `json:"sid"`
	Ended bool   `json:"ended"`
	// Exit is how its program ended.
	Exit string `json:"exit,omitempty"`
}

const (
	// kept is how much of a terminal's output stays for pages that come later, in bytes.
	kept = 2 << 20
	// window is how much output may be sent to a page that has not acknowledged it. Then
	// the program waits, as in any terminal: nothing is lost, and the page still responds.
	window = 512 << 10
	// chunk is how much is sent at once.
	chunk = 64 << 10
	// maxTyped bounds what was typed, or pasted, and the program has not read, in bytes.
	maxTyped = 8 << 20
	// maxTerminals bounds those of one app.
	maxTerminals = 64
)

var errNoTerminal = errors.New("there is none")

var errTerminals = fmt.Errorf("there are %d terminals open already", maxTerminals)

// terminals are those of this process.
type terminals struct {
	changed func()
	mu      sync.Mutex
	last    int
	all     []*terminal
}

// terminal is one of them.
type terminal struct {
	id, sid string
	sizes   chan runtime.TerminalSize
	cancel  context.CancelFunc
	over    <-chan struct{} // closed when the program has ended, or is to

	mu    sync.Mutex
	news  *sync.Cond // output, an acknowledgement, a page that has gone, or the end
	typed []byte     // and not read yet
	out   []byte     // the end of the output
	start int64      // how much of it came before out
	pages map[*attached]struct{}
	ended bool
	exit  string
}

// attached is a page that shows a terminal.
type attached struct {
	sent, taken int64 // of the output
	began       int64 // how much of it there was when the page came
	gone        bool
}

func (t *terminals) list() []Terminal {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Terminal, len(t.all))
	for i, one := range t.all {
		one.mu.Lock()
		all[i] = Terminal{one.id, one.sid, one.ended, one.exit}
		one.mu.Unlock()
	}
	return all
}

func (t *terminals) find(id string) *terminal {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, one := range t.all {
		if one.id == id {
			return one
		}
	}
	return nil
}

// open runs a command in a session's terminal.
func (t *terminals) open(ctx context.Context, wg *sync.WaitGroup, s *session.Session, size runtime.TerminalSize) (*terminal, error) {
	t.mu.Lock()
	if len(t.all) >= maxTerminals {
		t.mu.Unlock()
		return nil, errTerminals
	}
	ctx, cancel := context.WithCancel(ctx)
	t.last++
	one := &terminal{id: strconv.Itoa(t.last), sid: s.Info.SID, sizes: make(chan runtime.TerminalSize), cancel: cancel, over: ctx.Done(), pages: map[*attached]struct{}{}}
	one.news = sync.NewCond(&one.mu)
	t.all = append(t.all, one)
	t.mu.Unlock()
	t.changed()
	wg.Go(func() {
		exit, err := s.Exec(ctx, runtime.Command{
			Shell:    shell,
			Env:      []string{"TERM=xterm-256color", "COLORTERM=truecolor"},
			Terminal: &runtime.Terminal{Size: size, Sizes: one.sizes},
			Stdio:    runtime.Stdio{Stdin: one, Stdout: one},
		})
		cancel()
		one.end(exit, err)
		t.changed()
	})
	context.AfterFunc(ctx, one.wake)
	return one, nil
}

// shell is the best one that an image has.
const shell = `for s in bash ash; do command -v $s >/dev/null 2>&1 && exec $s; done; exec sh`

// drop ends a terminal, and forgets it.
func (t *terminals) drop(id string) error {
	t.mu.Lock()
	i := slices.IndexFunc(t.all, func(one *terminal) bool { return one.id == id })
	if i < 0 {
		t.mu.Unlock()
		return fmt.Errorf("terminal %q: %w", id, errNoTerminal)
	}
	one := t.all[i]
	t.all = slices.Delete(t.all, i, i+1)
	t.mu.Unlock()
	one.cancel()
	t.changed()
	return nil
}

func (one *terminal) wake() {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.news.Broadcast()
}

func (one *terminal) end(exit runtime.Exit, err error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.ended = true
	switch {
	case errors.Is(err, context.Canceled):
		one.exit = "closed"
	case err != nil:
		one.exit = err.Error()
	default:
		one.exit = fmt.Sprintf("exit code %d", exit.Code)
	}
	one.news.Broadcast()
}

// Write takes the program's output. It waits while a page has not taken what was sent
// to it. What comes to such a page after the terminal was closed is dropped: in its
// place would go what the page was not sent yet.
func (one *terminal) Write(p []byte) (int, error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	for one.full() && !one.isOver() {
		one.news.Wait()
	}
	if one.full() {
		return len(p), nil
	}
	one.out = append(one.out, p...)
	if more := len(one.out) - kept; more > kept/2 {
		one.out, one.start = slices.Clone(one.out[more:]), one.start+int64(more)
	}
	one.news.Broadcast()
	return len(p), nil
}

// Read gives the program what was typed.
func (one *terminal) Read(p []byte) (int, error) {
	one.mu.Lock()
	defer one.mu.Unlock()
	for len(one.typed) == 0 {
		if one.isOver() {
			return 0, io.EOF
		}
		one.news.Wait()
	}
	n := copy(p, one.typed)
	one.typed = one.typed[n:]
	return n, nil
}

// enter keeps what was typed until the program reads it. To wait for that would delay
// the page's acknowledgements, which come over the same connection.
func (one *terminal) enter(b []byte) bool {
	one.mu.Lock()
	defer one.mu.Unlock()
	if len(one.typed)+len(b) > maxTyped {
		return false
	}
	one.typed = append(one.typed, b...)
	one.news.Broadcast()
	return true
}

func (one *terminal) isOver() bool {
	select {
	case <-one.over:
		return true
	default:
		return false
	}
}

func (one *terminal) full() bool {
	end := one.start + int64(len(one.out))
	for p := range one.pages {
		if !p.gone && end-p.taken > window {
			return true
		}
	}
	return false
}

// attach shows the terminal to a page from an offset of its output on, and returns where
// that is: later, when the beginning is not kept any more.
func (one *terminal) attach(from int64) *attached {
	one.mu.Lock()
	defer one.mu.Unlock()
	end := one.start + int64(len(one.out))
	if from < one.start || from > end {
		from = one.start
	}
	p := &attached{sent: from, taken: from, began: end}
	one.pages[p] = struct{}{}
	return p
}

func (one *terminal) detach(p *attached) {
	one.mu.Lock()
	defer one.mu.Unlock()
	p.gone = true
	delete(one.pages, p)
	one.news.Broadcast()
}

// next waits for output that a page was not sent yet; nil at the end.
func (one *terminal) next(p *attached) []byte {
	one.mu.Lock()
	defer one.mu.Unlock()
	for {
		if p.gone {
			return nil
		}
		have := one.out[p.sent-one.start:]
		switch {
		case len(have) > 0 && p.sent-p.taken < window:
			b := slices.Clone(have[:min(len(have), chunk)])
			p.sent += int64(len(b))
			return b
		case len(have) == 0 && one.ended:
			return nil
		}
		one.news.Wait()
	}
}

// took notes how much of the output a page has taken, in bytes since it joined.
func (one *terminal) took(p *attached, upTo int64) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if upTo > p.taken && upTo <= p.sent {
		p.taken = upTo
	}
	one.news.Broadcast()
}

func (s *server) terminalRoutes() {
	s.mux.HandleFunc("POST /api/sessions/{sid}/terminals", answer(s.openTerminal))
	s.mux.HandleFunc("GET /api/terminals/{id}", s.joinTerminal)
	s.mux.HandleFunc("DELETE /api/terminals/{id}", answer(func(r *http.Request, _ none) (any, error) {
		return nil, s.shells.drop(r.PathValue("id"))
	}))
}

func (s *server) openTerminal(r *http.Request, size runtime.TerminalSize) (any, error) {
	open, err := session.Open(s.Home, r.PathValue("sid"))
	if err != nil {
		return nil, err
	}
	if size.Rows == 0 || size.Columns == 0 {
		size = runtime.TerminalSize{Rows: 24, Columns: 80}
	}
	one, err := s.shells.open(s.ctx, &s.streams, open, size)
	if err != nil {
		return nil, err
	}
	return map[string]string{"id": one.id}, nil
}

// command is a text message of a page: how much of the output it has taken, or the new
// size of its terminal. Binary messages are what was typed.
type command struct {
	Taken   *int64 `json:"taken"`
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// joinTerminal shows a terminal to a page. The first message, a text, says from where of
// its output on, and how much of it was there already; the binary ones are the output, and the last is a text again: how it
// ended.
func (s *server) joinTerminal(w http.ResponseWriter, r *http.Request) {
	one := s.shells.find(r.PathValue("id"))
	if one == nil {
		fail(w, fmt.Errorf("terminal %q: %w", r.PathValue("id"), errNoTerminal))
		return
	}
	ws, ctx, ended := s.upgrade(w, r)
	if ws == nil {
		return
	}
	defer ended()
	from, _ := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	p := one.attach(from)
	defer one.detach(p)
	if err := writeText(ctx, ws, map[string]int64{"from": p.sent, "end": p.began}); err != nil {
		return
	}
	go func() {
		defer one.detach(p)
		for {
			kind, b, err := ws.Read(ctx)
			if err != nil || !one.obey(ctx, p, kind, b) {
				return
			}
		}
	}()
	for b := one.next(p); b != nil; b = one.next(p) {
		if ws.Write(ctx, websocket.MessageBinary, b) != nil {
			return
		}
	}
	one.mu.Lock()
	over, exit := one.ended, one.exit
	one.mu.Unlock()
	if over && writeText(ctx, ws, map[string]string{"exit": exit}) == nil {
		_ = ws.Close(websocket.StatusNormalClosure, "")
	}
}

// obey does what a page's message says; false when it makes no sense.
func (one *terminal) obey(ctx context.Context, p *attached, kind websocket.MessageType, b []byte) bool {
	if kind == websocket.MessageBinary {
		return one.enter(b)
	}
	var c command
	if json.Unmarshal(b, &c) != nil {
		return false
	}
	if c.Taken != nil {
		one.took(p, *c.Taken)
	}
	if c.Rows > 0 && c.Columns > 0 {
		select {
		case one.sizes <- runtime.TerminalSize{Rows: c.Rows, Columns: c.Columns}:
		case <-one.over:
		case <-ctx.Done():
		}
	}
	return true
}

func writeText(ctx context.Context, ws *websocket.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return ws.Write(ctx, websocket.MessageText, b)
}
