// Package protocol is what host and guest say to each other, defined once:
// the handshake of a connection, the frames of an operation and the messages
// in them. ../PROTOCOL.md is the description; both sides import this package.
//
// One operation is one stream. Its first frame is a [Request]; what follows
// depends on the operation. Dropping the stream cancels the operation.
package protocol

import "time"

// Version is the version of everything in this package. Host and guest must
// agree on it: an image carries the agent that it was made with.
const Version = 6

// PortName is the name of the virtio-serial port that the agent listens on.
const PortName = "org.lumina.agent.0"

// VsockReadyPort is the host's vsock port that the agent connects to, once, when
// it is up. That connection carries all streams, as the serial port does: hello
// from the host, hello from the guest, then the mux. A second one is that of a
// guest that has reset.
const VsockReadyPort = 1025

// VsockPort is the vsock port on which the agent awaits a host that has restored
// the guest: its first connection did not survive that.
const VsockPort = 1024

// DiskRoot and DiskScratch are the virtio-blk serial numbers by which the guest
// tells its disks apart. A volume's disk is DiskVolume followed by its number.
const (
	DiskRoot    = "root"
	DiskScratch = "scratch"
	DiskVolume  = "volume"
)

// Op names an operation.
type Op string

// The operations.
const (
	OpConfigure Op = "configure" // Configure → Reply, Clock → Configured; before anything else
	OpClock     Op = "clock"     // → Reply, Clock → Reply: the guest's clock is set
	OpRoom      Op = "room"      // Room → RoomLeft: how much of its disks the guest may still take
	OpExec      Op = "exec"      // Exec ⇄ stdin, signals, output, Exit
	OpProcesses Op = "processes" // → Processes: what Exec started and still knows
	OpLogs      Op = "logs"      // Logs → output frames of a detached process, then Reply
	OpKill      Op = "kill"      // Kill → Reply
	OpDial      Op = "dial"      // Dial → Reply, then the connection's bytes both ways
	OpDatagrams Op = "datagrams" // Dial → Reply, then datagrams both ways, see WriteDatagram
	OpEcho      Op = "echo"      // → Reply, then what the host sends, back: the least that a round trip costs
	OpCopyIn    Op = "copy_in"   // CopyIn, a tree of files → Copied
	OpCopyOut   Op = "copy_out"  // CopyOut → a tree of files
	OpChanges   Op = "changes"   // → Stdout frames: a tar archive of what changed, then Reply
	OpUnpack    Op = "unpack"    // Unpack, a tar archive as Stdin frames → Reply
	OpLayer     Op = "layer"     // Layer → Reply: every process is ended, and a layer begins
	OpShare     Op = "share"     // Share → Reply, then the messages of the guest's FUSE and the answers
	OpSnapshot  Op = "snapshot"  // → Reply: the guest can be saved, and waits to be restored and configured
	OpShutdown  Op = "shutdown"  // → Reply when all is on disk, then the VM ends
)

// Request opens an operation. Exactly the field that belongs to Op is set.
type Request struct {
	Version   int
	Op        Op
	Configure *Configure
	Room      *Room
	Exec      *Exec
	Logs      *Logs
	Kill      *Kill
	Dial      *Dial
	CopyIn    *CopyIn
	CopyOut   *CopyOut
	Unpack    *Unpack
	Layer     *Layer
	Share     *Share
}

// Configure makes a booted guest somebody: it gives it its name, time, entropy
// and addresses.
type Configure struct {
	// Template: a snapshot of the guest is going to be taken; it is configured again
	// whenever it is restored.
	Template  bool
	Hostname  string
	MachineID string // 32 hexadecimal digits
	// Seed is entropy for the kernel's pool; all of it is credited.
	Seed    []byte
	Network *Interface // nil: loopback only
	Mounts  []Mount
	// Hosts are more names for /etc/hosts.
	Hosts []Host
}

// Host is a name of another machine.
type Host struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// Mount is a file system of the host's: a volume's disk or a shared directory.
type Mount struct {
	Disk     string // its serial number, or
	Share    string // its tag
	Path     string
	ReadOnly bool
	// Served: the directory is no device's. The host serves it by OpShare.
	Served bool
}

// Share is a directory that the guest has mounted, or is about to, and the host serves.
type Share struct {
	Tag string `json:"tag"` // its Mount's
}

// Configured is the reply to Configure.
type Configured struct {
	// Marks says where the guest's part of the boot went.
	Marks []Mark
}

// Mark is a moment of the boot.
type Mark struct {
	Name string
	At   time.Duration // since the kernel started
}

// Interface is the guest's one interface.
type Interface struct {
	MAC     string // "": the device's
	Address string // CIDR
	Gateway string // "": the network leads nowhere else
	DNS     []string
	Search  []string // domains in which names without a dot are looked for
	MTU     int      // bytes; 0: the device's
}

// Room is about what the guest may still write to its disks, which are larger than the
// room that the host has for them.
type Room struct {
	// Left is how many bytes the host has left, of which the guest takes at most half more
	// than it had when it was asked last; less than none: as many as it likes; nil: it is
	// asked now.
	Left *int64 `json:"left,omitempty"`
	// Least is how many it may take whatever is left, since it has a limit.
	Least int64 `json:"least,omitempty"`
}

// RoomLeft is the reply to OpRoom.
type RoomLeft struct {
	None bool `json:"none,omitempty"` // a disk is full, since the host said so
}

// Exec starts a process.
type Exec struct {
	// Args is the program and its arguments. The program is looked up in
	// the PATH of Env.
	Args []string
	// Shell: Args is one string for /bin/sh -c.
	Shell bool
	// Env is the whole environment, NAME=value. What is missing of HOME,
	// HOSTNAME and, with a terminal, TERM is added.
	Env []string
	// Dir is the working directory, which is made when missing; "/" when empty.
	Dir string
	// User is USER, USER:GROUP or :GROUP, each a name or a number, looked up in
	// the guest's /etc/passwd and /etc/group; root when empty.
	User string
	// Stdin: the host sends Stdin frames; otherwise standard input is empty.
	Stdin bool
	// Terminal gives the process a terminal of this size instead of three
	// separate files: its output is Stdout frames, its input Stdin frames.
	Terminal *TerminalSize
	// Detach: the process outlives the stream, which ends with a Started
	// reply. Its output is kept in the guest for OpLogs.
	Detach bool
}

// TerminalSize is in characters.
type TerminalSize struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// Started is the reply to a detached Exec.
type Started struct {
	ID string `json:"id"`
}

// Processes is the reply to OpProcesses, oldest first.
type Processes struct {
	Processes []Process `json:"processes"`
}

// Process is one that Exec started: each that runs, and each detached one
// until it is so old that newer ones took its place.
type Process struct {
	ID       string        `json:"id"`
	PID      int           `json:"pid"`
	Args     []string      `json:"args"`
	Detached bool          `json:"detached"`
	Age      time.Duration `json:"age"`            // since its start
	Exit     *Exit         `json:"exit,omitempty"` // nil while it runs
}

// Logs asks for the output of a detached process from its start.
type Logs struct {
	ID     string `json:"id"`
	Follow bool   `json:"follow,omitempty"` // until it ends
}

// Kill sends a signal to the process group of a process.
type Kill struct {
	ID     string `json:"id"`
	Signal int    `json:"signal"`
}

// Dial connects to a port of the guest's loopback: by OpDial to one of TCP, by
// OpDatagrams to one of UDP.
type Dial struct {
	Port uint16 `json:"port"`
}

// Exit is how a process ended.
type Exit struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"` // the signal that ended it; Code is then 128+Signal
}

// CopyIn writes files into the guest.
type CopyIn struct {
	Path string `json:"path"`
	// User owns what is written, as in Exec; root when empty.
	User string `json:"user,omitempty"`
	// Content: what the source directory holds goes to Path, and not the
	// directory itself.
	Content bool `json:"content,omitempty"`
	// Preserve: mode and owner of what is there become the source's.
	Preserve bool `json:"preserve,omitempty"`
}

// CopyOut reads files of the guest.
type CopyOut struct {
	Path string `json:"path"`
}

// Copied is what was copied.
type Copied struct {
	Files int64 `json:"files"` // entries of any type
	Bytes int64 `json:"bytes"` // of file data, holes included
	// Written is what the receiver's file system took, in bytes; the receiver's
	// to know.
	Written int64 `json:"-"`
	// Skipped are sockets, FIFOs and devices, and what is mounted of the kernel's
	// as /proc, which are not copied; the first hundred by name.
	Skipped      int64    `json:"skipped,omitempty"`
	SkippedNames []string `json:"skipped_names,omitempty"`
	// Failed are files that could not be read, and were left out; the first
	// hundred with the reason.
	Failed      int64    `json:"failed,omitempty"`
	FailedNames []string `json:"failed_names,omitempty"`
}

// ErrorCode tells the kinds of agent errors apart.
type ErrorCode string

// The error codes.
const (
	CodeVersion  ErrorCode = "version"   // host and guest speak different versions
	CodeRequest  ErrorCode = "request"   // the request makes no sense
	CodeNotFound ErrorCode = "not_found" // program, directory or user does not exist
	CodeFailed   ErrorCode = "failed"    // the guest's kernel refused
)

// Error ends an operation that could not be done. It is an error.
type Error struct {
	Code    ErrorCode `json:"code"`
	Message string    `json:"message"`
}

func (e *Error) Error() string { return e.Message }
