package qemu

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/abdul-abdi/lumina/runtime/vm"
)

// serialPatience bounds how long a guest may take to read what is written to its serial
// port, beyond what QEMU and the pipe to it hold.
const serialPatience = 10 * time.Second

// serialInput is what a desktop's serial port reads: QEMU's standard input.
type serialInput struct {
	mu sync.Mutex // one writes at a time
	to *os.File
}

// addSerialInput gives QEMU a pipe as its standard input, and keeps the other end.
func (c *command) addSerialInput() (*serialInput, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making the serial port's pipe: %w", err)
	}
	c.stdin, c.own = read, append(c.own, read)
	return &serialInput{to: write}, nil
}

func (s *serialInput) close() { s.to.Close() }

// WriteSerial is part of [vm.SerialInput].
func (d *desktop) WriteSerial(p []byte) error {
	s := d.serial
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.to.SetWriteDeadline(time.Now().Add(serialPatience)); err != nil {
		return err
	}
	n, err := s.to.Write(p)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("its guest does not read its serial port: it took %d of %d bytes in %v", n, len(p), serialPatience)
	case err != nil:
		return fmt.Errorf("writing to its serial port: %w", errors.Join(vm.ErrEnded, err))
	}
	return nil
}
