package app

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"

	"github.com/abdul-abdi/lumina/runtime/desktop"
)

// maxMessage bounds a browser's message: one key or pointer event, or what is pasted;
// in bytes.
const maxMessage = 1 << 20

// upgrade makes a WebSocket of a request. It is open until ended is called, or the
// app ends.
func (s *server) upgrade(w http.ResponseWriter, r *http.Request) (ws *websocket.Conn, ctx context.Context, ended func()) {
	// A browser always says from where its page is; who does not is none.
	if r.Header.Get("Origin") == "" {
		http.NotFound(w, r)
		return nil, nil, nil
	}
	s.streams.Add(1)
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		s.streams.Done()
		return nil, nil, nil // Accept has answered
	}
	ws.SetReadLimit(maxMessage)
	ctx, cancel := context.WithCancel(s.ctx)
	return ws, ctx, func() {
		cancel()
		ws.CloseNow()
		s.streams.Done()
	}
}

// viewer connects a page to the screen of a desktop. When it cannot, it has answered, and
// the screen is nil; else ended is to be called at the end.
func (s *server) viewer(w http.ResponseWriter, r *http.Request) (_ *websocket.Conn, _ context.Context, _ net.Conn, ended func()) {
	c, err := s.client(r)
	if err != nil {
		fail(w, err)
		return nil, nil, nil, nil
	}
	ws, ctx, ended := s.upgrade(w, r)
	if ws == nil {
		return nil, nil, nil, nil
	}
	status := websocket.StatusPolicyViolation
	if err = c.CheckViewer(ctx); err == nil {
		status = websocket.StatusGoingAway
		var screen net.Conn
		if screen, err = c.Viewer(ctx); err == nil {
			return ws, ctx, screen, ended
		}
	}
	_ = ws.Close(status, short(err))
	ended()
	return nil, nil, nil, nil
}

// screen carries RFB between a page and a desktop.
func (s *server) screen(w http.ResponseWriter, r *http.Request) {
	ws, ctx, screen, ended := s.viewer(w, r)
	if screen == nil {
		return
	}
	defer ended()
	carry(ctx, ws, screen)
}

// carry carries bytes between a page and a stream, until one of them ends.
func carry(ctx context.Context, ws *websocket.Conn, stream net.Conn) {
	defer stream.Close()
	page := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	go func() {
		_, _ = io.Copy(stream, page)
		stream.Close()
	}()
	_, _ = io.Copy(page, stream)
	_ = ws.Close(websocket.StatusNormalClosure, "")
}

// maxReason is how long the reason of a WebSocket's end may be, in bytes (RFC 6455).
const maxReason = 123

func short(err error) string {
	text := err.Error()
	return text[:min(len(text), maxReason)]
}

// serialTail is how much of what was written before is sent, in bytes.
const serialTail = 64 << 10

// serialPause is how often the serial port's file is looked at: that a file grows is
// told by no watcher, see package watch.
const serialPause = 250 * time.Millisecond

// serial sends what a desktop's guest writes to its serial port: the end of what it
// wrote since its boot, and then more of it, until the page goes. What the page sends is
// typed there.
func (s *server) serial(w http.ResponseWriter, r *http.Request) {
	m, err := s.desktops.Find(r.PathValue("id"))
	if err != nil {
		fail(w, err)
		return
	}
	ws, ctx, ended := s.upgrade(w, r)
	if ws == nil {
		return
	}
	defer ended()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		s.typeSerial(ctx, ws, m.ID)
	}()
	follow(ctx, s.desktops.SerialFile(m), func(b []byte) error { return ws.Write(ctx, websocket.MessageBinary, b) })
}

// typeSerial types what a page sends into a desktop's serial port, until the page goes. An
// error is sent as a text.
func (s *server) typeSerial(ctx context.Context, ws *websocket.Conn, id string) {
	for {
		kind, b, err := ws.Read(ctx)
		if err != nil {
			return
		}
		if kind != websocket.MessageBinary || len(b) == 0 {
			continue
		}
		c, err := desktop.Open(s.Home, id)
		if err == nil {
			err = c.TypeSerial(ctx, b)
		}
		if err != nil && writeText(ctx, ws, map[string]string{"error": oneLine(err)}) != nil {
			return
		}
	}
}

// follow calls send with what is in a file and is appended to it, until ctx ends. A
// file that has become shorter begins anew.
func follow(ctx context.Context, name string, send func([]byte) error) {
	var at int64 = -1
	buf := make([]byte, serialTail)
	t := time.NewTicker(serialPause)
	defer t.Stop()
	for {
		if f, err := os.Open(name); err == nil {
			if info, err := f.Stat(); err == nil && (at < 0 || info.Size() < at) {
				at = max(0, info.Size()-serialTail)
			}
			n, _ := f.ReadAt(buf, at)
			f.Close()
			if n > 0 {
				at += int64(n)
				if send(buf[:n]) != nil {
					return
				}
				continue
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
