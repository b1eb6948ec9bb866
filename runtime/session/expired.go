package session

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// record begins the name, before its identifier, of what is left of a session that its
// TTL ended: a directory with expired.json, for who asks after it. The newest are kept.
const record = ".ended-"

const (
	expiredFile = "expired.json" // expiry
	maxRecords  = 64
)

// expiry is how a session ended that was not used.
type expiry struct {
	Name string        `json:"name,omitempty"`
	TTL  time.Duration `json:"ttl"`
	At   time.Time     `json:"at"`
}

func (e *expiry) String() string {
	return fmt.Sprintf("its ttl of %v ended it at %s", e.TTL, e.At.Local().Format("15:04:05 on 2 January"))
}

// expire makes a record of a session's directory. It appears at once.
func expire(dir string, info *Info, ttl time.Duration) error {
	to := filepath.Join(filepath.Dir(dir), record+info.SID)
	err := writeJSON(dir, expiredFile, &expiry{Name: info.Name, TTL: ttl, At: time.Now()})
	if err == nil {
		err = os.Rename(dir, to)
	}
	if err != nil { // as of a full disk: it is but a record
		return removeDir(dir)
	}
	for _, name := range []string{infoFile, socket, lockFile} {
		if err := remove(filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// records are the directories of all, the oldest first.
func records(home string) (dirs []string) {
	entries, _ := os.ReadDir(sessionsDir(home))
	made := map[string]time.Time{}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), record) || !isSID(sidOf(e.Name())) {
			continue
		}
		dir := filepath.Join(sessionsDir(home), e.Name())
		if info, err := e.Info(); err == nil {
			made[dir] = info.ModTime()
		}
		dirs = append(dirs, dir)
	}
	slices.SortFunc(dirs, func(a, b string) int { return made[a].Compare(made[b]) })
	return dirs
}

// forget removes all records but the newest ones. What cannot be removed stays.
func forget(home string, keep int) {
	dirs := records(home)
	for _, dir := range dirs[:max(len(dirs)-keep, 0)] {
		_ = removeDir(dir)
	}
}

// expired is how the newest session ended that id named, if its TTL did.
func expired(home, id string) *expiry {
	dirs := records(home)
	for _, dir := range slices.Backward(dirs) {
		e := new(expiry)
		if readJSON(dir, expiredFile, e) == nil && (id != "" && e.Name == id || len(id) >= 4 && strings.HasPrefix(sidOf(filepath.Base(dir)), id)) {
			return e
		}
	}
	return nil
}
