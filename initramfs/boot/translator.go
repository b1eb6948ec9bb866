//go:build linux

package boot

import (
	"fmt"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

// The host's translator, and where it is registered with the kernel.
const (
	translatorDir = "/run/rosetta"
	binfmtDir     = "/proc/sys/fs/binfmt_misc"
)

// addTranslator has programs of the other architecture run by the host's
// translator, if there is one: Rosetta on a Mac.
func (s *System) addTranslator() error {
	tag := s.cmdline[protocol.ParamRosetta]
	if tag == "" {
		return nil
	}
	if err := mountShare(protocol.Mount{Share: tag, Path: translatorDir}, unix.MS_RDONLY); err != nil {
		return err
	}
	if err := (mount{"binfmt_misc", binfmtDir, "binfmt_misc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""}).apply(); err != nil && err != unix.EBUSY {
		return err
	}
	rule, err := translatorRule(goruntime.GOARCH)
	if err != nil {
		return err
	}
	return os.WriteFile(binfmtDir+"/register", []byte(rule), 0o200)
}

// translatorRule says by its head which program is the translator's, as binfmt_misc
// wants it (the kernel's binfmt-misc.rst): a 64-bit little-endian ELF program, or
// position-independent one, of the other architecture. F opens the translator now:
// chroots and containers need not have it. C gives setuid programs their rights.
func translatorRule(arch string) (string, error) {
	machine := map[string]string{"arm64": `\x3e`, "amd64": `\xb7`}[arch] // EM_X86_64, EM_AARCH64
	if machine == "" {
		return "", fmt.Errorf("no translator for %s", arch)
	}
	const (
		magic = `\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00`
		mask  = `\xff\xff\xff\xff\xff\xfe\xfe\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff`
	)
	return ":rosetta:M::" + magic + machine + `\x00:` + mask + ":" + translatorDir + "/rosetta:FOC", nil
}
