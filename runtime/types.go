package runtime

import (
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
	"github.com/abdul-abdi/lumina/runtime/client"
)

// Exit is how a command ended.
type Exit struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"` // the signal that ended it; Code is then 128+Signal
}

// Process is a command that Exec or Detach started.
type Process struct {
	ID       string        `json:"id"`
	PID      int           `json:"pid"`
	Args     []string      `json:"args"`
	Detached bool          `json:"detached"`
	Age      time.Duration `json:"age"`            // since its start
	Exit     *Exit         `json:"exit,omitempty"` // nil while it runs
}

func processOf(p protocol.Process) Process {
	return Process{ID: p.ID, PID: p.PID, Args: p.Args, Detached: p.Detached, Age: p.Age, Exit: (*Exit)(p.Exit)}
}

// Copied is what a copy did, or has done so far.
type Copied struct {
	Files int64 `json:"files"` // entries of any type
	Bytes int64 `json:"bytes"` // of file data, holes included
	// Written is what the receiver's file system took, in bytes.
	Written int64 `json:"-"`
	// Skipped are sockets, FIFOs and devices, and what is mounted of the kernel's
	// as /proc, which are not copied; the first hundred by name.
	Skipped      int64    `json:"skipped,omitempty"`
	SkippedNames []string `json:"skipped_names,omitempty"`
	// Failed are files that could not be read and are missing; the first hundred
	// by name, with the reason.
	Failed      int64    `json:"failed,omitempty"`
	FailedNames []string `json:"failed_names,omitempty"`
}

// CopyOptions are how to copy.
type CopyOptions struct {
	// Preserve gives what is there the mode and owner of the source, and what is
	// new that owner.
	Preserve bool
	// MaxSize bounds what a copy out writes, in bytes; 0 for half of what is
	// free where it goes.
	MaxSize int64
	// Silence is how long the agent may keep a copy waiting; 0 for two minutes.
	Silence time.Duration
	// Progress, if not nil, is called with what was copied so far.
	Progress func(Copied)
}

func (o CopyOptions) client() client.CopyOptions {
	c := client.CopyOptions{Preserve: o.Preserve, MaxSize: o.MaxSize, Silence: o.Silence}
	if o.Progress != nil {
		c.Progress = func(p protocol.Copied) { o.Progress(Copied(p)) }
	}
	return c
}
