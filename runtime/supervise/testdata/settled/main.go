// Command settled is a supervisor that has settled in a directory, and says what it can
// still do there and elsewhere. It has no cgo, as what is released.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/abdul-abdi/lumina/runtime/confine"
	"github.com/abdul-abdi/lumina/runtime/supervise"
)

func main() {
	home, shared := os.Args[1], os.Args[2]
	sessions := filepath.Join(home, "sessions")
	own, other := filepath.Join(sessions, "own"), filepath.Join(sessions, "other")
	// Threads that are there before.
	began, go1 := make(chan bool), make(chan bool)
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		close(began)
		<-go1
		_, err := os.ReadFile(filepath.Join(home, "images/image.json"))
		done <- err
	}()
	<-began
	open, err := os.OpenFile(filepath.Join(home, "images/image.json"), os.O_RDWR, 0)
	if err == nil {
		err = supervise.Settle(own, confine.Policy{Write: []string{shared}}, nil)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	say := func(what string, err error) {
		result := "done"
		if errors.Is(err, fs.ErrPermission) {
			result = "refused"
		} else if err != nil {
			result = err.Error()
		}
		fmt.Printf("%s: %s\n", what, result)
	}
	read := func(name string) error { _, err := os.ReadFile(name); return err }
	say("an image", read(filepath.Join(home, "images/image.json")))
	close(go1)
	say("from another thread", <-done)
	say("a new image", os.Mkdir(filepath.Join(home, "images/new"), 0o700))
	say("a template", os.WriteFile(filepath.Join(home, "cache/templates/memory"), nil, 0o600))
	say("another session's file", read(filepath.Join(other, "session.json")))
	say("changing it", os.WriteFile(filepath.Join(other, "session.json"), nil, 0o600))
	say("removing it", os.Remove(filepath.Join(other, "session.json")))
	say("the home directory", read(filepath.Join(home, "../.secret")))
	_, err = open.ReadAt(make([]byte, 1), 0)
	say("what was open", err)
	say("its own file", os.WriteFile(filepath.Join(own, "session.json.new"), nil, 0o600))
	say("exchanging its own", os.Rename(filepath.Join(own, "session.json.new"), filepath.Join(own, "session.json")))
	say("what is shared", os.WriteFile(filepath.Join(shared, "new"), nil, 0o600))
	say("the resolver's file", read("/etc/hosts"))
	_, err = os.ReadDir(sessions)
	say("who else there is", err)
	gone := filepath.Join(sessions, ".gone-own")
	say("its end", errors.Join(os.Rename(own, gone), os.Remove(filepath.Join(gone, "session.json")), os.Remove(gone)))
}
