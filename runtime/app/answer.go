package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"

	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/image"
	"github.com/abdul-abdi/lumina/runtime/session"
)

// maxBody bounds what a request says, in bytes; files are not among it.
const maxBody = 1 << 20

// errBad is wrapped by errors about what was asked for, rather than what came of it.
var errBad = errors.New("bad request")

// bad makes an error one of the caller's.
type bad struct{ error }

func (b bad) Unwrap() []error { return []error{b.error, errBad} }

// answer makes a handler of a function that takes a JSON body and returns what is
// sent as one; nothing for nil.
func answer[T any](f func(r *http.Request, in T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in T
		if r.Method != http.MethodGet && r.Method != http.MethodDelete {
			err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&in)
			if err != nil && !errors.Is(err, io.EOF) {
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

// none is the body of a request that has none.
type none struct{}

func send(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer is no JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // a browser that has gone
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	send(w, statusOf(err), map[string]string{"error": err.Error()})
}

func statusOf(err error) int {
	for _, known := range []struct {
		err    error
		status int
	}{
		{errBad, http.StatusBadRequest},
		{desktop.ErrNotFound, http.StatusNotFound}, {session.ErrNotFound, http.StatusNotFound},
		{image.ErrNotFound, http.StatusNotFound}, {fs.ErrNotExist, http.StatusNotFound}, {errNoJob, http.StatusNotFound},
		{desktop.ErrExists, http.StatusConflict}, {desktop.ErrRunning, http.StatusConflict}, {desktop.ErrNotRunning, http.StatusConflict},
		{image.ErrInUse, http.StatusConflict}, {image.ErrExists, http.StatusConflict}, {session.ErrNameTaken, http.StatusConflict},
		{context.Canceled, 499},
	} {
		if errors.Is(err, known.err) {
			return known.status
		}
	}
	return http.StatusInternalServerError
}
