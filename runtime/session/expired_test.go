package session

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/abdul-abdi/lumina/runtime/name"
)

// Records are of the newest sessions, and small; what is no record is left alone.
func TestRecords(t *testing.T) {
	home := t.TempDir()
	foreign := filepath.Join(sessionsDir(home), record+"x")
	if err := os.MkdirAll(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	end := func(called string, ttl time.Duration) {
		t.Helper()
		info := &Info{SID: name.UUID(), Name: called}
		lock, err := makeDir(home, info)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		dir := filepath.Join(sessionsDir(home), info.SID)
		if err := expire(dir, info, ttl); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(sessionsDir(home), record+info.SID)
		if files, err := os.ReadDir(to); err != nil || len(files) != 1 {
			t.Errorf("the record holds %v, %v", files, err)
		}
		past := time.Now().Add(-time.Hour)
		if ttl == time.Second {
			past = past.Add(-time.Minute)
		}
		if err := os.Chtimes(to, past, past); err != nil {
			t.Fatal(err)
		}
	}
	end("old", time.Second)
	end("web", time.Second)
	end("web", 2*time.Second)
	if e := expired(home, "web"); e == nil || e.TTL != 2*time.Second {
		t.Errorf("of the name: %v, want the newest", e)
	}
	for range maxRecords {
		if err := os.Mkdir(filepath.Join(sessionsDir(home), record+name.UUID()), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	end("", 3*time.Second)
	if n := len(records(home)); n != maxRecords {
		t.Errorf("%d records, want %d", n, maxRecords)
	}
	if e := expired(home, "old"); e != nil {
		t.Errorf("the oldest is kept: %v", e)
	}
	if e := expired(home, ""); e != nil {
		t.Errorf("no name names %v", e)
	}
	if sids, err := list(home); len(sids) != 0 || err != nil || Stale(home) != 0 {
		t.Errorf("sessions %v, %v, %d stale", sids, err, Stale(home))
	}
	if n, err := Clean(home); n != 0 || err != nil || len(records(home)) != 0 {
		t.Errorf("Clean() = %d, %v, and %d records are left", n, err, len(records(home)))
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}
