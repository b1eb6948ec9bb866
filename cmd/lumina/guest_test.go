package main

import (
	"strings"
	"testing"

	"github.com/abdul-abdi/lumina/builder/buildertest"
)

// guestCase is a command in a VM, and what it prints.
type guestCase struct {
	name  string
	args  []string // flags of exec
	shell string
	want  string
}

// check runs cases in a session.
func check(t *testing.T, sid string, cases []guestCase) {
	t.Helper()
	for _, c := range cases {
		r := lumina(t, append(append([]string{"exec"}, c.args...), sid, c.shell)...)
		if r.code != 0 || r.Stdout != c.want || r.Stderr != "" {
			t.Errorf("%s: exit code %d, stdout %q, want %q; %s", c.name, r.code, r.Stdout, c.want, r.stdout)
		}
	}
}

// guestSession starts a session that ends with the test.
func guestSession(t *testing.T, args ...string) string {
	t.Helper()
	sid := lumina(t, append([]string{"session", "start"}, args...)...).succeeded(t).SID
	t.Cleanup(func() { lumina(t, "session", "stop", sid).succeeded(t) })
	return sid
}

// What a container runtime sets up around a process.
func TestProcessSurroundings(t *testing.T) {
	sid := guestSession(t, "--image", "debian", "-h", "my-guest.example", "--rm", "--network", "bridge")
	lumina(t, "exec", sid, `groupadd -g 50000 crew; groupadd -g 50001 extra; useradd -u 1500 -g crew -G extra -m alice; gpasswd -a root extra >/dev/null`).succeeded(t)
	user := func(u string) []string { return []string{"--user", u} }
	check(t, sid, []guestCase{
		{"standard files of a user", user("1000"), "echo a >/dev/stdout; echo b >/proc/self/fd/1; echo c 2>/dev/null >/dev/fd/1; readlink /dev/stdin", "a\nb\nc\n/proc/self/fd/0\n"},
		{"standard files of a name", user("alice"), "echo hi >/dev/stdout; stat -Lc %U /dev/stdout /dev/stderr", "hi\nalice\nalice\n"},
		{"home of root", nil, "echo $HOME", "/root\n"},
		{"home of a user", user("alice"), "echo $HOME", "/home/alice\n"},
		{"home of a number", user("1500"), "echo $HOME", "/home/alice\n"},
		{"home of nobody in the files", user("4321"), "echo $HOME", "/\n"},
		{"home that is given", []string{"-e", "HOME=/x"}, "echo $HOME", "/x\n"},
		{"root's other groups", nil, "id -G", "0 50001\n"},
		{"name", user("alice"), "id -u; id -G", "1500\n50000 50001\n"},
		{"name and an empty group", user("alice:"), "id -u; id -G", "1500\n50000 50001\n"},
		{"number and an empty group", user("1500:"), "id -u; id -G", "1500\n50000 50001\n"},
		{"group alone", user(":44"), "id -u; id -g; id -G", "0\n44\n44\n"},
		{"name and number", user("alice:44"), "id -u; id -G", "1500\n44\n"},
		{"number and name", user("1000:extra"), "id -u; id -G", "1000\n50001\n"},
		{"numbers", user("70000:80000"), "id -u; id -G", "70000\n80000\n"},
		{"directory that is missing", []string{"--workdir", "/no/such/place", "--user", "1000"}, "pwd; stat -c %U:%a . ..", "/no/such/place\nroot:755\nroot:755\n"},
		{"directory of root's", []string{"--workdir", "/root", "--user", "1000"}, "pwd", "/root\n"},
		{"directory behind a dangling link", []string{"--workdir", "/var/lock/deep"}, "pwd -P", "/run/lock/deep\n"},
		{"host name", nil, `[ "$HOSTNAME" = "$(hostname)" ] && hostname && cat /etc/hostname && hostname -i && getent hosts ip6-localhost | tr -s ' '`, "my-guest.example\nmy-guest.example\n10.0.2.15\n::1 localhost ip6-localhost ip6-loopback\n"},
		{"low port", user("1000"), `perl -MIO::Socket::INET -e 'IO::Socket::INET->new(LocalPort=>80,Listen=>1) or die $!; print "ok\n"'`, "ok\n"},
		{"ping's socket", user("1000:2000"), `perl -MSocket -e 'socket(S,AF_INET,SOCK_DGRAM,1) or die $!; print "ok\n"'`, "ok\n"},
		{"devices", user("1000"), "cd /dev; stat -c '%n %a %G' fuse net/tun null zero full random urandom tty ptmx vsock loop-control vda; : <fuse; : <net/tun",
			"fuse 666 root\nnet/tun 666 root\nnull 666 root\nzero 666 root\nfull 666 root\nrandom 666 root\nurandom 666 root\ntty 666 tty\nptmx 666 tty\nvsock 666 root\nloop-control 660 disk\nvda 660 disk\n"},
		{"file systems", user("1000"), "for d in /dev/shm /dev/mqueue; do : >$d/x && rm $d/x && echo $d; done; stat -fc %T /proc /sys /dev/shm; stat -c %a /dev/shm", "/dev/shm\n/dev/mqueue\nproc\nsysfs\ntmpfs\n1777\n"},
		{"what is mounted, for older programs", nil, "readlink /etc/mtab; df / >/dev/null && echo ok", "/proc/mounts\nok\n"},
		{"signals and privileges", user("1000"), "grep -E '^(Sig(Blk|Ign)|Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '0\t\n'; umask",
			"SigBlk:SigIgn:CapInh:CapPrm:CapEff:CapAmb:NoNewPrivs:Seccomp:0022\n"},
		{"a loop device holds a file system that grows", nil, `set -e; head -c 8M /dev/zero >/img; l=$(losetup -f --show /img); mkfs.ext4 -q $l; mount $l /mnt; echo x >/mnt/x
			truncate -s 16M /img; losetup -c $l; resize2fs $l >/dev/null 2>&1; [ $(df --output=size /mnt | tail -1) -gt 9000 ]; umount /mnt; losetup -d $l; echo ok`, "ok\n"},
		{"an overlay, whose upper directory is on no overlay", nil, `set -e; mount -t tmpfs t /mnt; cd /mnt; mkdir l u w m; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m; echo y >m/y; cat u/y; umount m; cd /; umount /mnt`, "y\n"},
		{"what a distribution's kernel has", nil, `grep -c ^read_bytes /proc/self/io; grep -c avg10 /proc/pressure/cpu; grep -o bbr /proc/sys/net/ipv4/tcp_available_congestion_control
			zcat /proc/config.gz | grep -cE '^CONFIG_(WIREGUARD|DUMMY|NET_VRF|NET_IPGRE|TASKSTATS|TASK_DELAY_ACCT)=y'`, "1\n2\nbbr\n6\n"},
		{"limits", nil, "[ $(ulimit -n) -ge 65536 ] && [ $(cat /proc/sys/vm/max_map_count) -ge 262144 ] && ulimit -s", "8192\n"},
	})
	detached := lumina(t, "exec", "--detach", "--user", "alice", sid, "echo out >/dev/stdout; echo err >/dev/stderr").succeeded(t).ID
	for {
		if r := lumina(t, "ps", sid).succeeded(t); strings.Contains(r.stdout, `"state":"exited"`) {
			break
		}
	}
	if r := lumina(t, "logs", sid, detached).succeeded(t); r.Stdout != "out\n" || r.Stderr != "err\n" {
		t.Errorf("detached: %s", r.stdout)
	}
	lumina(t, "exec", sid, `cp /etc/passwd /root; awk 'BEGIN{for(i=0;i<150000;i++)print "u" i ":x:" i+100000 ":" i+100000 "::/home/u" i ":/bin/sh"
		print "broken:x:zero:0:::"; print "last:x:99:98::/home/last:/bin/sh"}' >>/etc/passwd; printf 'many:x:97:%s,last\n' "$(yes many | head -100000 | tr '\n' ,)" >>/etc/group`).succeeded(t)
	check(t, sid, []guestCase{
		{"the last of many", user("last"), "id -u; id -G; echo $HOME", "99\n98 97\n/home/last\n"},
		{"accounts change", nil, "rm /etc/passwd; mkfifo /etc/passwd", ""},
		{"accounts that are a FIFO", user("12:34"), "id -u; echo $HOME", "12\n/\n"},
		{"accounts change again", nil, "rm /etc/passwd; mkdir /etc/passwd", ""},
		{"accounts that are a directory", user("99"), "id -g; echo $HOME", "0\n/\n"},
		{"accounts are back", nil, "rmdir /etc/passwd; cp /root/passwd /etc", ""},
		{"as before", user("alice"), "echo $HOME", "/home/alice\n"},
	})
	for _, args := range [][]string{{"--user", "no-one"}, {"--user", "alice:no-group"}, {"--workdir", "/etc/passwd/x"}} {
		r := lumina(t, append(append([]string{"exec"}, args...), sid, "echo ran")...)
		if r.code != 125 || r.Error != "connection_failed" || !strings.Contains(r.Message, strings.Split(args[1], ":")[0]) && !strings.Contains(r.Message, "no-group") {
			t.Errorf("%q: exit code %d, %s", args, r.code, r.stdout)
		}
	}
}

// Images whose files are not what one expects start, and what can work in them does.
func TestOddRoots(t *testing.T) {
	tests := []struct {
		name  string
		layer string // makes the layer over Debian
		cases []guestCase
	}{
		{"links", `mkdir -p usr/etc2/hosts/x && ln -s /usr dev && ln -s nowhere proc && ln -s ../../../sys sys && ln -s usr/etc2 etc
			ln -s /var/tmp tmp && ln -s /var/newrun run && ln -s /run/none/resolv.conf usr/etc2/resolv.conf && mkfifo usr/etc2/machine-id`, []guestCase{
			{"mounts", nil, "stat -fc %T /proc /sys; [ -c /dev/null ] && [ -d /proc/1 ] && [ ! -L /dev ] && echo ok", "proc\nsysfs\nok\n"},
			{"names", nil, `grep -c "$HOSTNAME" /etc/hosts /usr/etc2/hostname; grep -c nameserver /etc/resolv.conf; wc -c </etc/machine-id; readlink /etc`,
				"/etc/hosts:1\n/usr/etc2/hostname:1\n1\n33\nusr/etc2\n"},
			{"directory behind a dangling link", []string{"--workdir", "/run/app"}, "pwd -P", "/var/newrun/app\n"},
		}},
		{"files", `: >etc && : >dev && mkfifo proc && : >sys && : >tmp`, []guestCase{
			{"mounts", nil, "stat -fc %T /proc /sys; [ -c /dev/null ] && wc -l </etc/hostname; id -u; echo $HOME", "proc\nsysfs\n1\n0\n/\n"},
			{"nobody is known", []string{"--user", "12:34"}, "id -u; id -G; echo $HOME >/dev/stdout", "12\n34\n/\n"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, name := t.TempDir(), "odd-"+tt.name
			buildertest.Run(t, "cp", "-r", buildertest.DebianFor(t, "amd64"), dir+"/layout")
			buildertest.Run(t, "sh", "-ec", "mkdir "+dir+"/root && cd "+dir+"/root\n"+tt.layer+"\ntar -cf ../layer.tar *")
			buildertest.Run(t, "umoci", "raw", "add-layer", "--image", dir+"/layout:latest", dir+"/layer.tar")
			lumina(t, "images", "create", name, "--from", "oci:"+dir+"/layout:latest").succeeded(t)
			t.Cleanup(func() { lumina(t, "images", "remove", name).succeeded(t) })
			check(t, guestSession(t, "--image", name), tt.cases)
		})
	}
}
