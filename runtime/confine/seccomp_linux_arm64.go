package confine

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

func (p *program) limit() {}

var (
	refusedHere []bits
	opensHere   []open
)
