//go:build unix

// Package socketpair makes two connected sockets, one of them for another process.
package socketpair

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// New makes a pair of unix sockets of a type, such as [syscall.SOCK_STREAM]: ours,
// and a file to pass on. Processes that are started meanwhile inherit neither.
func New(kind int) (*net.UnixConn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socketpair")
	ours, err := Conn(os.NewFile(uintptr(fds[0]), "socketpair"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// Conn makes a unix socket of a file, which it closes.
func Conn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("a %s connection is not a unix socket", conn.LocalAddr().Network())
	}
	return unix, nil
}
