package vz

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// Simulated is the driver over a simulation of the framework, for tests on Linux:
// there is no other. log reports what goes wrong below it; cacheDir is the driver's.
func Simulated(log func(format string, args ...any), cacheDir string) *Driver {
	return &Driver{framework: &simulation{log: log}, cacheDir: cacheDir}
}

// simulation is a framework that runs a real guest, by QEMU, as the real one
// would, and fights back where the real one does. Its vsock is carried by the
// guest's serial port: this host may have none.
type simulation struct {
	log func(format string, args ...any)
	// hold is how long disks stay locked after a machine has stopped.
	hold time.Duration
	// lateLock: locked disks are found at the start, which tells a machine's end, and
	// not when the machine is made.
	lateLock bool
	// noRestore: this host saves machines and restores none.
	noRestore bool
	// unsigned: the program lacks its entitlement.
	unsigned bool
	// activities are those that have begun and not ended.
	activities atomic.Int64
	// deaf machines do nothing when they are asked to stop.
	deaf atomic.Bool
	// arm64: a Mac with Apple silicon; else one with an Intel processor.
	arm64 bool
	// translator is the directory of what stands in for Rosetta; "" for none.
	translator string
}

func (*simulation) limits() (cpus int, memory int64) { return 8, 16 << 30 }

func (s *simulation) signature() (string, error) {
	if s.unsigned {
		return "Executable=/usr/local/bin/lumina\nSignature=adhoc\n", nil
	}
	return signedText, nil
}

func (*simulation) quarantine() (string, error) { return "", nil }

func (s *simulation) activity() (end func()) {
	s.activities.Add(1)
	return func() { s.activities.Add(-1) }
}

func (s *simulation) rosetta() error {
	if s.translator == "" {
		return errNoRosetta
	}
	return nil
}

func (*simulation) release() (string, error) { return "15.5", nil }
func (*simulation) build() (string, error)   { return "24F74 Mac16,1", nil }

// path is the name that a file has now, or had last.
func (*simulation) path(f *os.File) (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

func (s *simulation) arch() string {
	if s.arm64 {
		return "arm64"
	}
	return "amd64"
}

func (*simulation) newMacIdentifier() ([]byte, error) { return nil, errNoMac }

// newVariables refuses a file that is there, as the framework does.
func (*simulation) newVariables(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("variables")
	return errors.Join(err, f.Close())
}

func (*simulation) newDesktop(*desktopConfiguration) (desktopMachine, error) {
	return nil, errors.New("the simulation has no screen")
}

func (*simulation) newIdentifier() ([]byte, error) {
	id := make([]byte, 32)
	_, err := rand.Read(id)
	return id, err
}

// newMachine refuses what the framework refuses, and locks writable disks.
func (s *simulation) newMachine(c *configuration) (virtualMachine, error) {
	if err := s.validate(c.cpus, c.memory); err != nil {
		return nil, err
	}
	kernel, err := os.ReadFile(c.kernel)
	if err != nil {
		return nil, err
	}
	// Of whatever is not a bzImage, or no Image.
	if s.arm64 && (len(kernel) < 64 || string(kernel[56:60]) != "ARM\x64") || !s.arm64 && (len(kernel) < 0x206 || string(kernel[0x202:0x206]) != "HdrS") {
		return nil, errors.New("internal error")
	}
	m := newSimulated(s, c)
	if err := m.lockDisks(); err != nil && !s.lateLock {
		return nil, err
	}
	return m, nil
}

// validate refuses what the framework refuses of every machine.
func (s *simulation) validate(cpus int, memory int64) error {
	const invalid = "invalid virtual machine configuration"
	mostCPUs, mostMemory := s.limits()
	switch {
	case s.unsigned:
		return errors.New(invalid + ": the process doesn't have the entitlement")
	case cpus < 1 || cpus > mostCPUs:
		return errors.New(invalid + ": the number of CPUs")
	case memory%(1<<20) != 0 || memory > mostMemory:
		return errors.New(invalid + ": the memory")
	}
	return nil
}

// signedText is what codesign(1) says of a program that make build has signed.
const signedText = "Executable=/usr/local/bin/lumina\nSignature=adhoc\n<dict><key>com.apple.security.network.server</key><false/>" +
	"<key>com.apple.security.virtualization</key><true/></dict>"
