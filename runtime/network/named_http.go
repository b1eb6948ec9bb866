package network

import (
	"bytes"
	"io"

	"github.com/abdul-abdi/lumina/runtime/network/http1"
)

// httpRules has each request of a connection name an allowed host. One is passed on
// when the one before is answered.
type httpRules struct {
	*named
	asked    chan *http1.Request // of what the next response is the answer
	answered chan bool           // the response is over; true if it made the connection a WebSocket
	pending  bool
	asking   *http1.Request // the host's side: of what the response under way is the answer
}

// next is the next request.
func (h *httpRules) next() (io.Reader, error) {
	// An end of the guest's does not wait for an answer.
	if _, err := h.guestBytes.Peek(1); err != nil {
		return nil, err
	}
	if h.pending {
		select {
		case upgraded := <-h.answered:
			if upgraded {
				return endless{h.guestBytes}, nil
			}
		case <-h.ended:
			return nil, io.EOF // nobody is there to answer
		}
	}
	q, err := http1.ReadRequest(h.guestBytes)
	if err == nil {
		err = h.check(q)
	}
	h.refuse(err)
	switch refused := err.(type) {
	case *wrongName:
		h.forbid(refused.reason)
	case http1.Refused:
		h.forbid(string(refused))
	}
	if err != nil {
		return nil, err
	}
	h.pending = true
	h.asked <- q
	if body := q.Body(h.guestBytes); body != nil {
		return io.MultiReader(bytes.NewReader(q.Head), body), nil
	}
	return bytes.NewReader(q.Head), nil
}

func (h *httpRules) check(q *http1.Request) error {
	if q.Port != 0 && q.Port != h.to.Port() {
		return &wrongName{q.Host, "the request names another port than the connection's"}
	}
	return h.network.checkName(q.Host, h.to)
}

// nextBack is the next response.
func (h *httpRules) nextBack() (io.Reader, error) {
	if _, err := h.hostBytes.Peek(1); err != nil {
		return nil, err
	}
	if h.asking == nil {
		select {
		case h.asking = <-h.asked:
		default:
			return endless{h.hostBytes}, nil // an idle host's farewell
		}
	}
	q := h.asking
	s, err := http1.ReadResponse(h.hostBytes, q.Method)
	if err != nil {
		return nil, err
	}
	head := bytes.NewReader(s.Head)
	if s.Interim() {
		return head, nil
	}
	if s.Status == 101 {
		if q.WebSocket {
			h.answered <- true
		} // else it switches to a protocol that was not asked for: the guest may send nothing more
		return io.MultiReader(head, endless{h.hostBytes}), nil
	}
	body, last := s.Body(h.hostBytes)
	switch {
	case last:
		return io.MultiReader(head, endless{body}), nil
	case body == nil:
		return &whenOver{head, h}, nil
	}
	return &whenOver{io.MultiReader(head, body), h}, nil
}

// whenOver is a response whose end lets the next request go.
type whenOver struct {
	io.Reader
	h *httpRules
}

func (w *whenOver) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err == io.EOF {
		w.h.asking = nil
		w.h.answered <- false
	}
	return n, err
}
