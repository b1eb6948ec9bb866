package vz

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// refusal is what the framework says of a configuration that it does not take.
type refusal struct {
	domain      string
	code        int
	description string // in the user's language
	info        string
}

// What the framework says of disks that another machine has, of an auxiliary storage
// with the errno below it.
const (
	refusalDomain = "VZErrorDomain"
	refusalCode   = 2 // the configuration is invalid
	refusalText   = "storage device attachment"
	refusalErrno  = "NSPOSIXErrorDomain Code=35" // EAGAIN
)

// locked tells files that are locked from other faults, of which the framework says much
// the same. paths are the files that the machine writes to.
func (r refusal) locked(paths []string) bool {
	if r.domain != refusalDomain || r.code != refusalCode {
		return false
	}
	if strings.Contains(r.description, refusalText) || strings.Contains(r.info, refusalErrno) {
		return true
	}
	for _, path := range paths {
		if held(path) {
			return true
		}
	}
	return false
}

// held says whether somebody has a lock on a file.
func held(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // and with it what is locked here
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}
