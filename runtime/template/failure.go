package template

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// failureSuffix is of a file beside where a template would be: why there is none.
const failureSuffix = ".failed"

// retry is when a template that could not be made is tried again.
const retry = time.Hour

// maxReason bounds what is kept of a reason, in bytes: it may have a guest's console.
const maxReason = 4 << 10

// maxFailure bounds the file, in bytes: escapes make a reason longer.
const maxFailure = 64 << 10

// Failure is a template that could not be made, or not be used.
type Failure struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

func (s *Store) failurePath(key string) string { return filepath.Join(s.dir, key+failureSuffix) }

// Fail keeps why a template is not made or used, so that not every start tries.
func (s *Store) Fail(key string, reason error) error {
	text := reason.Error()
	b, err := json.Marshal(Failure{Reason: text[:min(len(text), maxReason)], At: time.Now()})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return durable.Replace(s.failurePath(key), b, 0o600)
}

// forgive forgets a failure.
func (s *Store) forgive(key string) error {
	if err := os.Remove(s.failurePath(key)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Failed is why there is no template of a key; ok is false when nothing is known
// against making it.
func (s *Store) Failed(key string) (f Failure, ok bool) { return readFailure(s.failurePath(key)) }

func readFailure(path string) (f Failure, ok bool) {
	b, err := statefile.Read(path, maxFailure)
	if err != nil || json.Unmarshal(b, &f) != nil {
		return Failure{}, false
	}
	age := time.Since(f.At)
	return f, age >= 0 && age < retry
}

// Failures are all that are kept.
func (s *Store) Failures() []Failure {
	var all []Failure
	entries, _ := os.ReadDir(s.dir) // none there: no failures
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), failureSuffix) {
			continue
		}
		if f, ok := readFailure(filepath.Join(s.dir, e.Name())); ok {
			all = append(all, f)
		}
	}
	return all
}
