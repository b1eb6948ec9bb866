//go:build linux

package agent

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// exec runs a process and returns when it has ended and its output is sent.
func (s *Server) exec(req *protocol.Exec, r *protocol.Reader, w *protocol.Writer) error {
	cmd, err := prepare(req)
	if err != nil {
		return err
	}
	std, err := openStdio(req.Stdin)
	if err != nil {
		return err
	}
	defer std.close()
	cmd.attr.Files = []uintptr{std.childIn.Fd(), std.childOut.Fd(), std.childErr.Fd()}
	pid, ended, err := s.reaper.Start(cmd.path, cmd.args, cmd.attr)
	std.closeChild()
	if err != nil {
		return startError(cmd.path, err)
	}

	in := newStdin()
	if req.Stdin {
		go in.feed(std.in, w)
	}
	cancelled := make(chan error, 1)
	go func() { cancelled <- watch(r, in) }()
	stdout := startPump(std.out, protocol.FrameStdout, w)
	stderr := startPump(std.err, protocol.FrameStderr, w)

	var status syscall.WaitStatus
	select {
	case status = <-ended:
	case err := <-cancelled:
		killSession(pid)
		<-ended
		in.close()
		std.close()
		<-stdout.done
		<-stderr.done
		return err
	}
	in.close()
	stdout.finish()
	stderr.finish()
	exit := protocol.Exit{Code: status.ExitStatus()}
	if status.Signaled() {
		exit = protocol.Exit{Code: 128 + int(status.Signal()), Signal: int(status.Signal())}
	}
	return w.Message(protocol.FrameExit, exit)
}

// watch reads the host's frames while the process runs. It returns when the
// host has dropped the stream or broken the protocol.
func watch(r *protocol.Reader, in *stdin) error {
	for {
		t, payload, err := r.Next()
		if err != nil {
			return errors.Join(errCancelled, err)
		}
		switch t {
		case protocol.FrameStdin:
			err = in.put(payload)
		case protocol.FrameStdinClose:
			in.close()
		default:
			err = protocol.ErrMalformed
		}
		if err != nil {
			return err
		}
	}
}

// command is a resolved request.
type command struct {
	path string
	args []string
	attr *syscall.ProcAttr
}

func prepare(req *protocol.Exec) (command, error) {
	if len(req.Args) == 0 || req.Args[0] == "" {
		return command{}, &protocol.Error{Code: protocol.CodeRequest, Message: "no command given"}
	}
	who, err := lookupUser(req.User)
	if err != nil {
		return command{}, err
	}
	dir := req.Dir
	if dir == "" {
		dir = "/"
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return command{}, notFound("working directory %q does not exist in the guest", dir)
	}
	env := req.Env
	if _, ok := lookupEnv(env, "HOME"); !ok {
		env = append(env[:len(env):len(env)], "HOME="+who.home)
	}
	c := command{args: req.Args, attr: &syscall.ProcAttr{
		Dir: dir,
		Env: env,
		Sys: &syscall.SysProcAttr{Setsid: true},
	}}
	if req.User != "" {
		c.attr.Sys.Credential = &syscall.Credential{Uid: who.uid, Gid: who.gid, Groups: who.groups}
	}
	if req.Shell {
		c.path, c.args = "/bin/sh", []string{"/bin/sh", "-c", req.Args[0]}
		if _, err := os.Stat(c.path); err != nil {
			return command{}, notFound("the image has no /bin/sh; run a program without a shell: -- PROG ARG…")
		}
		return c, nil
	}
	search, _ := lookupEnv(env, "PATH")
	c.path, err = lookPath(req.Args[0], dir, search)
	return c, err
}

func lookupEnv(env []string, name string) (string, bool) {
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(env[i], "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}

// lookPath finds a program as execvp does, in the guest's PATH rather than
// the agent's.
func lookPath(name, dir, search string) (string, error) {
	if strings.Contains(name, "/") {
		full := name
		if !path.IsAbs(full) {
			full = path.Join(dir, name)
		}
		if _, err := os.Stat(full); err != nil {
			return "", notFound("program %q does not exist in the guest", name)
		}
		return full, nil
	}
	for _, d := range strings.Split(search, ":") {
		if d == "" {
			d = dir
		}
		full := path.Join(d, name)
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", notFound("program %q is not in the guest's PATH (%s)", name, search)
}

func startError(program string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return notFound("program %q cannot start: it or its interpreter does not exist in the guest", program)
	}
	return failed("starting "+program, err)
}

// stdio is the two ends of a process's standard files.
type stdio struct {
	in, out, err                *os.File // ours
	childIn, childOut, childErr *os.File
}

func openStdio(input bool) (*stdio, error) {
	s := &stdio{}
	var inErr, outErr, errErr error
	if input {
		s.childIn, s.in, inErr = os.Pipe()
	} else {
		s.childIn, inErr = os.Open(os.DevNull)
	}
	s.out, s.childOut, outErr = os.Pipe()
	s.err, s.childErr, errErr = os.Pipe()
	if err := errors.Join(inErr, outErr, errErr); err != nil {
		s.closeChild()
		s.close()
		return nil, failed("opening pipes", err)
	}
	return s, nil
}

func (s *stdio) closeChild() {
	for _, f := range []*os.File{s.childIn, s.childOut, s.childErr} {
		if f != nil {
			f.Close()
		}
	}
}

// close may be called more than once.
func (s *stdio) close() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
}
