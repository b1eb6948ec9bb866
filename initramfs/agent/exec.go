//go:build linux

package agent

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/abdul-abdi/lumina/initramfs/mkdir"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// exec runs a process. It returns when the process has ended and its output is
// sent or, when the request detaches it, has started.
func (s *Server) exec(req *protocol.Exec, r *protocol.Reader, w *protocol.Writer) error {
	p, ended, std, err := s.launch(req, s.processes.start)
	if err != nil {
		return err
	}
	if req.Detach {
		go s.keep(p, ended, std)
		return w.Message(protocol.FrameReply, protocol.Started{ID: p.id})
	}
	defer s.processes.remove(p)
	return attach(p, ended, std, r, w)
}

// launch starts the process that a request asks for, by a function that is given what
// forks it.
func (s *Server) launch(req *protocol.Exec, start func(*protocol.Exec, forker) (*process, <-chan syscall.WaitStatus, error)) (*process, <-chan syscall.WaitStatus, *stdio, error) {
	cmd, err := s.prepare(req)
	if err != nil {
		return nil, nil, nil, err
	}
	std, err := openStdio(req, cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	p, ended, err := start(req, func() (int, <-chan syscall.WaitStatus, error) {
		pid, ended, err := s.reaper.Start(cmd.path, cmd.args, cmd.attr)
		if errors.Is(err, fs.ErrPermission) && cmd.attr.Sys.Credential != nil {
			pid, ended, err = s.reaper.startInside(cmd.path, cmd.args, cmd.attr)
		}
		return pid, ended, err
	})
	std.closeChild()
	if err != nil {
		std.close()
		return nil, nil, nil, startError(cmd.path, err)
	}
	return p, ended, std, nil
}

// attach carries a process's input and output until it has ended.
func attach(p *process, ended <-chan syscall.WaitStatus, std *stdio, r *protocol.Reader, w *protocol.Writer) error {
	defer std.close()
	in := newStdin()
	if std.in != nil {
		go in.feed(std.in, w, std.endInput)
	}
	cancelled := make(chan error, 1)
	go func() { cancelled <- watch(r, p, in, std) }()
	pumps := startPumps(std, w)
	select {
	case status := <-ended:
		in.close()
		for _, p := range pumps {
			p.finish()
		}
		return w.Last(protocol.FrameExit, exitOf(status))
	case err := <-cancelled:
		killSession(p.pid)
		<-ended
		in.close()
		std.close()
		for _, p := range pumps {
			<-p.done
		}
		return err
	}
}

// keep carries a detached process's output into its log until it has ended.
func (s *Server) keep(p *process, ended <-chan syscall.WaitStatus, std *stdio) {
	defer std.close()
	pumps := startPumps(std, protocol.NewWriter(p.log))
	status := <-ended
	for _, p := range pumps {
		p.finish()
	}
	s.processes.end(p, exitOf(status))
}

func exitOf(status syscall.WaitStatus) protocol.Exit {
	if status.Signaled() {
		return protocol.Exit{Code: 128 + int(status.Signal()), Signal: int(status.Signal())}
	}
	return protocol.Exit{Code: status.ExitStatus()}
}

// watch reads the host's frames while the process runs. It returns when the
// host has dropped the stream or broken the protocol.
func watch(r *protocol.Reader, p *process, in *stdin, std *stdio) error {
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
		case protocol.FrameResize:
			var size protocol.TerminalSize
			if err = protocol.Decode(payload, &size); err == nil {
				err = std.resize(size)
			}
		case protocol.FrameSignal:
			var signal syscall.Signal
			if signal, err = protocol.DecodeSignal(payload); err == nil {
				std.signal(p.pid, signal)
			}
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

func (s *Server) prepare(req *protocol.Exec) (*command, error) {
	if len(req.Args) == 0 || req.Args[0] == "" {
		return nil, &protocol.Error{Code: protocol.CodeRequest, Message: "no command given"}
	}
	who, err := s.accounts.lookup(req.User)
	if err != nil {
		return nil, err
	}
	dir, err := workingDir(req.Dir)
	if err != nil {
		return nil, err
	}
	c := &command{args: req.Args, attr: &syscall.ProcAttr{
		Dir: dir,
		Env: environment(req, who.home),
		Sys: &syscall.SysProcAttr{Setsid: true},
	}}
	if !who.root() {
		c.attr.Sys.Credential = &syscall.Credential{Uid: who.uid, Gid: who.gid, Groups: who.groups}
	}
	if req.Shell {
		c.path, c.args = "/bin/sh", []string{"/bin/sh", "-c", req.Args[0]}
		if _, err := os.Stat(c.path); err != nil {
			return nil, notFound("the image has no /bin/sh; run a program without a shell: -- PROG ARG…")
		}
		return c, nil
	}
	search, _ := lookupEnv(c.attr.Env, "PATH")
	c.path, err = lookPath(req.Args[0], dir, search)
	return c, err
}

// workingDir makes the working directory, which the image need not have, as its superuser.
func workingDir(dir string) (string, error) {
	if dir == "" {
		dir = "/"
	}
	info, err := os.Stat(dir)
	switch {
	case err == nil && info.IsDir():
	case err == nil:
		return "", notFound("working directory %q is not a directory in the guest", dir)
	default:
		if err := mkdir.All(dir, 0o755); err != nil {
			return "", notFound("working directory %q cannot be made in the guest: %v", dir, err)
		}
	}
	return dir, nil
}

// environment is the request's, with what a container runtime adds where it is missing.
func environment(req *protocol.Exec, home string) []string {
	env := req.Env[:len(req.Env):len(req.Env)]
	if v, ok := lookupEnv(env, "HOME"); !ok {
		env = append(env, "HOME="+home)
	} else if v == "" {
		env = slices.DeleteFunc(slices.Clone(env), func(e string) bool { return e == "HOME=" })
		env = append(env, "HOME="+home)
	}
	if _, ok := lookupEnv(env, "HOSTNAME"); !ok {
		if name, err := os.Hostname(); err == nil {
			env = append(env, "HOSTNAME="+name)
		}
	}
	if _, ok := lookupEnv(env, "TERM"); !ok && req.Terminal != nil {
		env = append(env, "TERM=xterm")
	}
	return env
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
