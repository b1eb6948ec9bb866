package supervise

import (
	"os"
	"slices"
	"strings"
)

// passed are the variables of the environment that processes of lumina's own have a
// use for: where programs and files are, how QEMU is to run, and where a window opens.
// No other is passed on: a caller's environment may hold secrets, which would be
// readable for as long as a VM runs.
var passed = []string{
	"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LC_ALL", "XDG_CACHE_HOME",
	"LUMINA_HOME", "LUMINA_ACCEL", "LUMINA_CGROUP",
	"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR",
}

// Environment is the environment of a process that lumina starts of itself.
func Environment() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return !slices.Contains(passed, name)
	})
}
