//go:build linux

package agent

import (
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// maxEnded is how many detached processes that have ended are remembered.
const maxEnded = 256

// processes is what exec started and the host may ask for.
type processes struct {
	logs   string // a directory of the file system that detached processes' output goes to
	mu     sync.Mutex
	lastID int
	all    []*process // in the order of their start
}

// process is one of them. Its fields but exit are set before it is shared.
type process struct {
	id       string
	pid      int
	args     []string
	started  time.Time
	detached bool
	log      *log           // of a detached process
	exit     *protocol.Exit // guarded by processes.mu; nil while it runs
}

// forker starts a process, and says when it has ended.
type forker func() (pid int, ended <-chan syscall.WaitStatus, err error)

// start forks a process and enters it, so that a caller that sees its end also finds
// it here.
func (ps *processes) start(req *protocol.Exec, fork forker) (*process, <-chan syscall.WaitStatus, error) {
	p := &process{args: req.Args, started: time.Now(), detached: req.Detach}
	if p.detached {
		var err error
		if p.log, err = newLog(ps.logs); err != nil {
			return nil, nil, err
		}
	}
	pid, ended, err := fork()
	if err != nil {
		if p.log != nil {
			p.log.remove()
		}
		return nil, nil, err
	}
	p.pid = pid
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.lastID++
	p.id = strconv.Itoa(ps.lastID)
	ps.all = append(ps.all, p)
	return p, ended, nil
}

func (ps *processes) remove(p *process) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if i := slices.Index(ps.all, p); i >= 0 {
		ps.all = slices.Delete(ps.all, i, i+1)
	}
}

// end records the end of a detached process and forgets the oldest beyond
// maxEnded.
func (ps *processes) end(p *process, exit protocol.Exit) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.exit = &exit
	ended := 0
	for _, q := range slices.Backward(ps.all) {
		if q.exit == nil {
			continue
		}
		if ended++; ended > maxEnded {
			q.log.remove()
			ps.all = slices.DeleteFunc(ps.all, func(r *process) bool { return r == q })
			break
		}
	}
	p.log.close()
}

func (ps *processes) find(id string) (*process, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.all {
		if p.id == id {
			return p, nil
		}
	}
	return nil, notFound("no process %q in this VM", id)
}

// running calls do with the process's group unless its end has been noted.
func (ps *processes) running(p *process, do func(pid int) error) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.exit != nil {
		return notFound("process %q has ended", p.id)
	}
	return do(p.pid)
}

func (ps *processes) list() protocol.Processes {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	l := protocol.Processes{Processes: []protocol.Process{}}
	for _, p := range ps.all {
		l.Processes = append(l.Processes, protocol.Process{
			ID: p.id, PID: p.pid, Args: p.args, Detached: p.detached, Age: time.Since(p.started), Exit: p.exit,
		})
	}
	return l
}

func (s *Server) kill(req *protocol.Kill, w *protocol.Writer) error {
	if req.Signal < 1 || req.Signal > 64 {
		return &protocol.Error{Code: protocol.CodeRequest, Message: "signal " + strconv.Itoa(req.Signal) + " is not one of 1 to 64"}
	}
	p, err := s.processes.find(req.ID)
	if err != nil {
		return err
	}
	if err := s.processes.running(p, func(pid int) error {
		err := syscall.Kill(-pid, syscall.Signal(req.Signal))
		if err == syscall.ESRCH { // It has been waited for, and its end is about to be noted.
			return notFound("process %q has ended", p.id)
		}
		return err
	}); err != nil {
		return err
	}
	return w.Message(protocol.FrameReply, nil)
}
