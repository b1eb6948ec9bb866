package session

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/flock"
)

// NameUsers adds to an error of an image or a volume that is in use which sessions have
// it, and what ends them.
func NameUsers(home string, err error) error {
	var held *flock.HeldError
	if !errors.As(err, &held) {
		return err
	}
	var failed *runtime.Error
	if errors.As(err, &failed) {
		return &runtime.Error{Kind: failed.Kind, Err: NameUsers(home, failed.Err), Console: failed.Console}
	}
	users := usersOf(home, held)
	switch len(users) {
	case 0:
		return fmt.Errorf("%w, which is no session's; it is free when that ends", err)
	case 1:
		return fmt.Errorf("%w: session %s; lumina session stop %[2]s ends it", err, users[0])
	}
	return fmt.Errorf("%w: sessions %s; lumina session stop %s ends them", err, strings.Join(users, ", "), strings.Join(users, " "))
}

// usersOf are the names of the sessions that hold a lock; their identifiers where they
// have none.
func usersOf(home string, held *flock.HeldError) (users []string) {
	sids, _ := list(home)
	for _, sid := range sids {
		dir := filepath.Join(sessionsDir(home), sid)
		info, err := readInfo(dir)
		if err != nil || !alive(dir) {
			continue
		}
		// Those who hold the lock, where the system tells; else those who should, of which
		// one that is starting may just be waiting for it.
		holds := info.Ready
		if len(held.PIDs) > 0 {
			holds = slices.Contains(held.PIDs, info.PID)
		}
		if !holds ||
			held.Kind == "image" && info.Image != held.Name || held.Kind == "volume" && !slices.Contains(info.Volumes, held.Name) {
			continue
		}
		if isName(info.Name) {
			sid = info.Name
		}
		users = append(users, sid)
	}
	return users
}
