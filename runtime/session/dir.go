package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/runtime/durable"
	"github.com/abdul-abdi/lumina/runtime/flock"
	"github.com/abdul-abdi/lumina/runtime/statefile"
)

// The files of a session's directory.
const (
	lockFile = "lock"         // held by the supervisor as long as it lives
	infoFile = "session.json" // Info
	endFile  = "end.json"     // Crash, once the VM has ended and nobody asked for it
	socket   = "socket"       // see protocol.go
)

// A directory that is being made or removed is called so, before its identifier: it
// is no session.
const (
	making   = ".new-"
	removing = ".gone-"
)

// sidOf is the identifier in the name of such a directory, or of a record.
func sidOf(name string) string {
	for _, prefix := range []string{making, removing, record} {
		name = strings.TrimPrefix(name, prefix)
	}
	return name
}

// isFile says whether a file of that name is ours, in a session's directory.
func isFile(name string) bool {
	return slices.Contains([]string{lockFile, infoFile, endFile, expiredFile, socket}, name) ||
		strings.HasPrefix(name, "."+infoFile+".new-") || strings.HasPrefix(name, "."+endFile+".new-") ||
		strings.HasPrefix(name, "."+expiredFile+".new-") ||
		name == infoFile+".new" // of older versions
}

// maxInfo bounds session.json and end.json, in bytes.
const maxInfo = 4 << 20

func sessionsDir(home string) string { return filepath.Join(home, "sessions") }

// makeDir makes the directory of a session, with its lock, which the kernel releases
// however this process ends. It appears at once and is locked then: what is not
// locked has no supervisor. The name is not that of a session that lives.
func makeDir(home string, info *Info) (*os.File, error) {
	lock, err := tryMakeDir(home, info)
	if err != nil && !errors.Is(err, ErrNameTaken) {
		err = fmt.Errorf("making the session's directory: %w", err)
	}
	return lock, err
}

// lookTimeout bounds how long a new session's lock may be looked at by others.
const lookTimeout = 5 * time.Second

func tryMakeDir(home string, info *Info) (_ *os.File, err error) {
	all, err := lockAll(home)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if err := checkFree(home, info.Name); err != nil {
		return nil, err
	}
	forget(home, maxRecords-1)
	fresh := filepath.Join(sessionsDir(home), making+info.SID)
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(fresh, lockFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	defer func() {
		if err != nil {
			if lock != nil {
				lock.Close()
			}
			os.RemoveAll(fresh)
		}
	}()
	if err != nil {
		return nil, err
	}
	// Who lists what there is looks at the lock for a moment, and may do so now.
	ctx, cancel := context.WithTimeoutCause(context.Background(), lookTimeout, errors.New("it stays locked"))
	defer cancel()
	if err := flock.Exclusive(ctx, lock); err != nil {
		lock = nil // closed
		return nil, err
	}
	if err := writeInfo(fresh, info); err != nil {
		return nil, err
	}
	return lock, os.Rename(fresh, filepath.Join(sessionsDir(home), info.SID))
}

// lockAll serializes the processes that make or remove directories of sessions; each
// takes a moment.
func lockAll(home string) (*os.File, error) {
	dir := sessionsDir(home)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), lockTimeout, errors.New("another lumina has been changing the sessions for too long"))
	defer cancel()
	return f, flock.Exclusive(ctx, f)
}

// lockTimeout bounds the wait for others who change the sessions.
const lockTimeout = 10 * time.Second

// ErrNameTaken is wrapped when a session of the name lives.
var ErrNameTaken = errors.New("there is a session of that name")

// checkFree returns an error when a session of a name lives.
func checkFree(home, name string) error {
	if name == "" {
		return nil
	}
	sids, err := list(home)
	if err != nil {
		return err
	}
	for _, sid := range sids {
		dir := filepath.Join(sessionsDir(home), sid)
		if info, err := readInfo(dir); err == nil && info.Name == name && alive(dir) {
			return fmt.Errorf("session name %q: %w: %s; stop it, or choose another name", name, ErrNameTaken, sid)
		}
	}
	return nil
}

// alive says whether a session's supervisor lives.
func alive(dir string) bool {
	f, err := openLock(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	busy, err := flock.TryShared(f)
	return busy && err == nil
}

func openLock(dir string) (*os.File, error) {
	return statefile.Open(filepath.Join(dir, lockFile))
}

// waitEnd returns when a session's supervisor has ended.
func waitEnd(ctx context.Context, dir string) error {
	f, err := openLock(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := flock.Exclusive(ctx, f); err != nil {
		return err
	}
	return f.Close()
}

// list returns the identifiers of all directories that hold a session.
func list(home string) ([]string, error) {
	entries, err := os.ReadDir(sessionsDir(home))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing sessions: %w", err)
	}
	var sids []string
	for _, e := range entries {
		if e.IsDir() && isSID(e.Name()) && holdsSession(filepath.Join(sessionsDir(home), e.Name())) {
			sids = append(sids, e.Name())
		}
	}
	return sids, nil
}

// holdsSession says whether there is anything of a session in a directory.
func holdsSession(dir string) bool {
	for _, name := range []string{lockFile, infoFile, endFile, socket} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// readInfo returns what could be read of session.json, also with an error.
func readInfo(dir string) (*Info, error) {
	info := new(Info)
	err := readJSON(dir, infoFile, info)
	if err == nil && info.SID != filepath.Base(dir) {
		err = fmt.Errorf("%s is %w: it is of session %.80q", infoFile, statefile.ErrDamaged, info.SID)
	}
	return info, err
}

func readJSON(dir, name string, v any) error {
	b, err := statefile.Read(filepath.Join(dir, name), maxInfo)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is %w: %w", name, statefile.ErrDamaged, err)
	}
	return nil
}

func writeInfo(dir string, info *Info) error { return writeJSON(dir, infoFile, info) }

// writeJSON makes a file appear at once and whole.
func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(dir, name), b, 0o600); err != nil {
		return fmt.Errorf("describing the session: %w", err)
	}
	return nil
}

// removeDir removes a session's directory: what a session has of files, and nothing
// else. It is renamed first, so that no process sees half a session.
func removeDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !isFile(e.Name()) || e.IsDir() }) {
		gone := filepath.Join(filepath.Dir(dir), removing+sidOf(filepath.Base(dir)))
		if err := os.Rename(dir, gone); err == nil {
			dir = gone
		}
	}
	for _, e := range entries {
		if !isFile(e.Name()) {
			continue
		}
		if err := remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return remove(dir)
}

// remove removes a file, or a directory that is empty.
func remove(name string) error {
	err := os.Remove(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %w", name, ErrForeign)
	}
	return err
}

// ErrForeign is wrapped when a session's directory stays, since there are files in
// it that are no session's.
var ErrForeign = errors.New("it contains files that are not lumina's and was not removed")

// Clean removes what the supervisors of sessions have left that have ended, and
// returns how many there were.
func Clean(home string) (removed int, err error) {
	if _, err := os.Stat(sessionsDir(home)); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	all, err := lockAll(home)
	if err != nil {
		return 0, fmt.Errorf("cleaning sessions: %w", err)
	}
	defer all.Close()
	forget(home, 0)
	dead, err := stale(home)
	var errs []error
	for _, dir := range dead {
		if err := removeDir(dir); err != nil {
			errs = append(errs, err)
			continue
		}
		removed++
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return removed, fmt.Errorf("cleaning sessions: %w", err)
	}
	return removed, nil
}

// Stale is how many directories supervisors have left that have ended.
func Stale(home string) int {
	dead, _ := stale(home)
	return len(dead)
}

// stale lists the directories that hold a session, or are none yet or any more, and
// that no process has.
func stale(home string) ([]string, error) {
	entries, err := os.ReadDir(sessionsDir(home))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var dead []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), record) {
			continue
		}
		sid := sidOf(e.Name())
		dir := filepath.Join(sessionsDir(home), e.Name())
		if e.IsDir() && isSID(sid) && (sid != e.Name() || holdsSession(dir)) && !alive(dir) {
			dead = append(dead, dir)
		}
	}
	return dead, nil
}
