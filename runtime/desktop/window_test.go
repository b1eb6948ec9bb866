package desktop

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// windowed is a machine whose window is this process's, as on macOS.
type windowed struct {
	ended   sync.Once
	done    chan struct{}
	err     error
	shown   chan struct{} // closed when the window is there
	close   chan struct{} // closed when somebody closes it
	pressed bool
}

func newWindowed() *windowed {
	return &windowed{done: make(chan struct{}), shown: make(chan struct{}), close: make(chan struct{})}
}

func (w *windowed) RunWindow(string) error {
	close(w.shown)
	select {
	case <-w.done:
	case <-w.close:
	}
	return nil
}

func (w *windowed) Kill()                 { w.ended.Do(func() { close(w.done) }) }
func (w *windowed) Done() <-chan struct{} { return w.done }
func (w *windowed) Err() error            { return cmp.Or(w.err, vm.ErrEnded) }

func (w *windowed) PowerButton() error {
	w.pressed = true
	w.Kill()
	return nil
}

// A window of this process's is shown until the desktop ends, whatever ends it.
func TestWindow(t *testing.T) {
	crashed := errors.New("crashed")
	for _, tt := range []struct {
		name    string
		end     func(*windowed, *supervisor, context.CancelFunc)
		pressed bool
		want    error
	}{
		{"the guest powers off", func(w *windowed, _ *supervisor, _ context.CancelFunc) { w.Kill() }, false, nil},
		{"the machine crashes", func(w *windowed, _ *supervisor, _ context.CancelFunc) { w.err = crashed; w.Kill() }, false, crashed},
		{"the window is closed", func(w *windowed, _ *supervisor, _ context.CancelFunc) { close(w.close) }, true, nil},
		{"somebody stops it", func(_ *windowed, s *supervisor, _ context.CancelFunc) { s.stop <- false }, true, nil},
		{"somebody ends it", func(_ *windowed, s *supervisor, _ context.CancelFunc) { s.stop <- true }, false, nil},
		{"Ctrl-C", func(_ *windowed, _ *supervisor, cancel context.CancelFunc) { cancel() }, true, context.Canceled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWindowed()
			s := &supervisor{m: &Manifest{Name: "d"}, machine: w, stop: make(chan bool)}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() {
				<-w.shown
				tt.end(w, s, cancel)
			}()
			if err := s.attend(ctx, Options{Window: true}); !errors.Is(err, tt.want) {
				t.Errorf("it ended with %v, want %v", err, tt.want)
			}
			if w.pressed != tt.pressed {
				t.Errorf("the power button was pressed: %v", w.pressed)
			}
		})
	}
}

// What a driver cannot do says so, and what can be done in its place.
func TestScreenThatCannotBeDriven(t *testing.T) {
	s := &supervisor{m: &Manifest{Name: "d"}, machine: newWindowed()}
	for name, request := range map[string]request{
		"screenshot": {Screenshot: true},
		"keys":       {Chords: [][]vm.Key{{"a"}}},
		"click":      {Click: &Click{}},
		"viewer":     {Viewer: true},
	} {
		_, err := s.do(t.Context(), request)
		if !errors.Is(err, vm.ErrUnsupported) || !strings.Contains(err.Error(), "without --headless") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
