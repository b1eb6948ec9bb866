package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/confine"
)

// Options says which session to start.
type Options struct {
	SID      string            `json:"sid"`
	Home     string            `json:"home"`
	Driver   string            `json:"driver,omitempty"`
	VM       runtime.VMOptions `json:"vm"`
	Forwards []Forward         `json:"forwards,omitempty"`
	// TTL ends the session when it was not used for that long; 0: never.
	TTL time.Duration `json:"ttl,omitempty"`
	// Wire connects a member of a network of VMs to its switch. It stays the
	// caller's.
	Wire *os.File `json:"-"`
}

// wireDescriptor is a supervisor's descriptor of the wire, after its result's.
const wireDescriptor = 4

// outcome is what a supervisor tells its parent, once, on descriptor 3.
type outcome struct {
	Error   string            `json:"error,omitempty"`
	Kind    runtime.ErrorKind `json:"kind,omitempty"`
	Console string            `json:"console,omitempty"`
}

// Start starts a session in a process of its own, which runs program with
// args and is expected to call Main. It returns when the VM's agent has
// answered.
func Start(ctx context.Context, program string, args []string, o Options) (*Session, error) {
	o.SID = newSID()
	if o.Wire != nil {
		o.VM.Member.Descriptor = wireDescriptor
	}
	input, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	result, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer result.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(input)
	cmd.ExtraFiles = []*os.File{theirs}
	if o.Wire != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, o.Wire)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	policy, err := policy(cmd.Path, &o)
	if err == nil {
		// Reaped when it ends, if this process is still there.
		err = confine.Start(policy, cmd.Start, func() { _ = cmd.Wait() })
	}
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("starting the session's supervisor: %w", err)
	}
	// A start that is given up takes the supervisor with it, and that its VM.
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	b, err := io.ReadAll(io.LimitReader(result, maxControl))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("waiting for the session: %w", err)
	}
	var out outcome
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, &runtime.Error{Kind: runtime.ConnectionFailed, Err: errors.New("the session's supervisor died while it started")}
	}
	if out.Error != "" {
		return nil, &runtime.Error{Kind: out.Kind, Err: errors.New(out.Error), Console: out.Console}
	}
	return Open(o.Home, o.SID)
}

// policy is what a supervisor may do: read the system, and change the state
// directory and what the VM shares. It starts the hypervisor, which may do less.
func policy(program string, o *Options) (confine.Policy, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "lumina") // what drivers know of this host
	if err := errors.Join(os.MkdirAll(o.Home, 0o700), os.MkdirAll(cache, 0o700)); err != nil {
		return confine.Policy{}, err
	}
	p := confine.Policy{
		Read: []string{program, "/usr", "/bin", "/lib", "/lib64", "/opt", "/nix/store", "/gnu/store",
			"/etc", "/proc", "/sys", "/run", "/dev/urandom"},
		Write:          []string{o.Home, cache, "/dev/null", "/dev/kvm", "/dev/vhost-vsock"},
		KeepPrivileges: true,
		Network:        true,
	}
	// The parts of the state directory may be links to larger disks.
	parts, err := os.ReadDir(o.Home)
	if err != nil {
		return confine.Policy{}, err
	}
	for _, part := range parts {
		if part.Type()&os.ModeSymlink != 0 {
			p.Write = append(p.Write, filepath.Join(o.Home, part.Name()))
		}
	}
	for _, v := range o.VM.Volumes {
		if v.Dir == "" {
			continue
		}
		if v.ReadOnly {
			p.Read = append(p.Read, v.Dir)
		} else {
			p.Write = append(p.Write, v.Dir)
		}
	}
	return p, nil
}

// Main is the supervisor process that Start makes.
func Main(ctx context.Context, stdin io.Reader) error {
	result := os.NewFile(3, "result")
	if result == nil {
		return errors.New("the supervisor is started by lumina session start only")
	}
	syscall.CloseOnExec(3)
	var o Options
	if err := json.NewDecoder(io.LimitReader(stdin, maxControl)).Decode(&o); err != nil {
		return fmt.Errorf("reading what to start: %w", err)
	}
	if o.VM.Member != nil {
		syscall.CloseOnExec(wireDescriptor)
	}
	return Supervise(ctx, o, func(err error) {
		defer result.Close()
		out := outcome{}
		if err != nil {
			out = outcome{Error: err.Error(), Kind: runtime.ConnectionFailed}
			var e *runtime.Error
			if errors.As(err, &e) {
				out.Error, out.Kind, out.Console = e.Err.Error(), e.Kind, e.Console
			}
		}
		_ = json.NewEncoder(result).Encode(out)
	})
}

// newSID makes a random UUID, version 4 of RFC 9562.
func newSID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
