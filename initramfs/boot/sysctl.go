//go:build linux

package boot

import "os"

// sysctls are what container tools and distributions set and the kernel does not.
var sysctls = []struct{ name, value string }{
	// Any user may listen on any port, and ping: the network is the VM's own.
	{"net/ipv4/ip_unprivileged_port_start", "0"},
	{"net/ipv4/ping_group_range", "0 2147483647"},
	// Links and files of others in /tmp are not followed blindly, as systemd has it.
	{"fs/protected_hardlinks", "1"},
	{"fs/protected_symlinks", "1"},
	// Databases map more files than the kernel's 65530, and some do not start then.
	{"vm/max_map_count", "1048576"},
}

func setSysctls() error {
	for _, s := range sysctls {
		if err := os.WriteFile("/proc/sys/"+s.name, []byte(s.value), 0); err != nil {
			return err
		}
	}
	return nil
}
