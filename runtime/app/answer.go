package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/printable"
	"github.com/abdul-abdi/lumina/runtime/session"
)

// maxBody bounds what a request says, in bytes; files are not among it.
const maxBody = 1 << 20

var errNoRoute = errors.New("there is no such request")

// errBad is wrapped by errors about what was asked for, rather than what came of it.
var errBad = errors.New("bad request")

// errConflict is wrapped by errors about what is so now, and could be otherwise.
var errConflict = errors.New("conflict")

// conflict makes an error one of these.
type conflict struct{ error }

func (c conflict) Unwrap() []error { return []error{c.error, errConflict} }

// bad makes an error one of the caller's.
type bad struct{ error }

func (b bad) Unwrap() []error { return []error{b.error, errBad} }

// answer makes a handler of a function that takes a JSON body and returns what is
// sent as one; nothing for nil.
func answer[T any](f func(r *http.Request, in T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in T
		if r.Method != http.MethodGet && r.Method != http.MethodDelete {
			if err := decode(r.Body, &in); err != nil {
				fail(w, bad{err})
				return
			}
		}
		out, err := f(r, in)
		switch {
		case err != nil:
			fail(w, err)
		case out == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			send(w, http.StatusOK, out)
		}
	}
}

// decode reads a body: one object with fields that are known, or nothing.
func decode(body io.Reader, in any) error {
	b, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	switch {
	case err != nil:
		return err
	case len(b) > maxBody:
		return fmt.Errorf("the request has more than %d bytes", maxBody)
	case len(bytes.TrimSpace(b)) == 0:
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(in)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return fmt.Errorf("%q cannot be a %s", wrong.Field, wrong.Value)
	case err != nil:
		return fmt.Errorf("the request is not valid JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
	case d.More():
		return errors.New("the request has more than one JSON value")
	}
	return nil
}

// none is the body of a request that has none.
type none struct{}

func send(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer is not JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a browser that has gone
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	send(w, statusOf(err), map[string]string{"error": oneLine(err)})
}

// oneLine is what an error says, on one line and without what a terminal obeys.
func oneLine(err error) string {
	return printable.Line(strings.ReplaceAll(err.Error(), "\n", "; "))
}

func statusOf(err error) int {
	for _, known := range []struct {
		err    error
		status int
	}{
		{errBad, http.StatusBadRequest}, {errNoRoute, http.StatusNotFound},
		{desktop.ErrNotFound, http.StatusNotFound}, {session.ErrNotFound, http.StatusNotFound},
		{image.ErrNotFound, http.StatusNotFound}, {fs.ErrNotExist, http.StatusNotFound}, {errNoJob, http.StatusNotFound}, {errNoTerminal, http.StatusNotFound},
		{errTerminals, http.StatusConflict}, {errConflict, http.StatusConflict},
		{desktop.ErrExists, http.StatusConflict}, {desktop.ErrRunning, http.StatusConflict}, {desktop.ErrNotRunning, http.StatusConflict},
		{image.ErrInUse, http.StatusConflict}, {image.ErrExists, http.StatusConflict}, {session.ErrNameTaken, http.StatusConflict},
		{context.Canceled, 499},
	} {
		if errors.Is(err, known.err) {
			return known.status
		}
	}
	var guest *protocol.Error
	if errors.As(err, &guest) {
		return map[protocol.ErrorCode]int{protocol.CodeRequest: http.StatusBadRequest, protocol.CodeNotFound: http.StatusNotFound, protocol.CodeFailed: http.StatusConflict, protocol.CodeVersion: http.StatusConflict}[guest.Code]
	}
	return http.StatusInternalServerError
}
