#!/bin/bash
# compare.sh IMAGE ROOTFS [RUNS]: start a command and end, and exec in what runs, with
# lumina and with others that isolate a program from its host, RUNS times (5) by turns.
# Prints medians in milliseconds.
#
# IMAGE is an image of lumina's, ROOTFS a directory with the same root file system
# (umoci unpack), which has python3. Of the others, those are measured that are in
# the PATH: msb (microsandbox, from npm) and runsc (gVisor, Debian's package), which
# needs root. bwrap and unshare would compare nothing: they share the host's kernel
# as it is. What each isolates by:
#
#   lumina        a VM: the guest's own kernel on KVM; QEMU confined by seccomp, Landlock and a user
#   microsandbox  a VM: the guest's own kernel on KVM; its VMM is the caller's ordinary process
#   runsc kvm     a kernel in Go, which makes 70 of the host's system calls; programs in KVM's guest mode
#   runsc ptrace  the same kernel; programs as traced processes of the host's
set -euo pipefail
(($# == 2 || $# == 3)) || { echo "usage: $0 IMAGE ROOTFS [RUNS]" >&2; exit 2; }
image=$1 rootfs=$(realpath "$2") runs=${3:-5}
[[ -x $rootfs/bin/sh ]] || { echo "compare: $rootfs is no root file system" >&2; exit 2; }
lumina=${LUMINA:-$(cd "$(dirname "$0")/.." && pwd)/bin/lumina}
work=$(mktemp -d)
export LUMINA_FORMAT=json
sid='' started=()
end() {
	[[ -z $sid ]] || "$lumina" session stop "$sid" >/dev/null
	for m in "${started[@]}"; do
		case $m in
		microsandbox) msb stop compare; msb remove compare ;;
		runsc*) runsc --root "$work/$m.exec.state" kill compare KILL; runsc --root "$work/$m.exec.state" delete -force compare ;;
		esac
	done >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM

# bundle DIR PROGRAM…: an OCI bundle of the root file system, for runsc.
bundle() {
	local dir=$1 args
	shift
	mkdir -p "$dir"
	args=$(printf '"%s",' "$@")
	cat >"$dir/config.json" <<JSON
{"ociVersion":"1.0.0","process":{"user":{"uid":0,"gid":0},"args":[${args%,}],"env":["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],"cwd":"/"},
"root":{"path":"$rootfs","readonly":true},"hostname":"compare","mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/tmp","type":"tmpfs","source":"tmpfs"}],
"linux":{"namespaces":[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}]}}
JSON
}

# gvisor METHOD NAME COMMAND…: runsc with the platform of METHOD.
gvisor() {
	local method=$1 name=$2
	shift 2
	runsc --root "$work/$method.$name.state" --platform="${method#runsc-}" --network=none --ignore-cgroups "$@"
}

# once METHOD WHAT: one measured thing.
once() {
	local program=(true)
	[[ $2 != python ]] || program=(python3 -c 1)
	case $1-$2 in
	lumina-exec) "$lumina" exec "$sid" -- true ;;
	lumina-*) "$lumina" run --image "$image" --network none -- "${program[@]}" ;;
	lumina,\ cold-exec) return 1 ;;
	lumina,\ cold-*) "$lumina" run --image "$image" --network none --no-template -- "${program[@]}" ;;
	microsandbox-exec) msb exec compare -- true ;;
	microsandbox-*) msb run --quiet "$rootfs" -- "${program[@]}" ;;
	*-exec) gvisor "$1" exec exec compare true ;;
	*) bundle "$work/$1.$2" "${program[@]}" && gvisor "$1" "$2" run -bundle "$work/$1.$2" "once-$RANDOM" ;;
	esac
}

# begin METHOD: what an exec is measured in.
begin() {
	case $1 in
	lumina) sid=$("$lumina" session start --image "$image" --network none | sed 's/.*"sid":"\([^"]*\)".*/\1/') ;;
	lumina*) ;;
	microsandbox) msb create --name compare "$rootfs" ;;
	*) bundle "$work/$1.exec" sleep 100000 && gvisor "$1" exec run -detach -bundle "$work/$1.exec" compare ;;
	esac
	started+=("$1")
}

methods=(lumina 'lumina, cold')
! type msb >/dev/null 2>&1 || methods+=(microsandbox)
! type runsc >/dev/null 2>&1 || methods+=(runsc-kvm runsc-ptrace)
works=()
for m in "${methods[@]}"; do # the first of each is not counted: it fills caches, and makes the template
	if once "$m" true >"$work/log" 2>&1 && begin "$m" >"$work/log" 2>&1 </dev/null; then works+=("$m")
	else echo "compare: $m does not work here: $(tail -n1 "$work/log")" >&2; fi
done
"$lumina" run --image "$image" --network none -- true >/dev/null # its template may be in the making
for ((run = 0; run < runs; run++)); do
	for what in true python exec; do
		for m in "${works[@]}"; do
			[[ $m-$what != 'lumina, cold-exec' ]] || continue
			from=$(date +%s%N)
			if once "$m" $what >"$work/log" 2>&1 </dev/null; then
				echo $((($(date +%s%N) - from) / 1000)) >>"$work/$m-$what"
			else
				echo "compare: $m, $what: $(tail -n1 "$work/log")" >&2
			fi
		done
	done
done
# median FILE: of microseconds, in milliseconds.
median() {
	[[ -s $1 ]] || { echo -; return; }
	sort -n "$1" | awk '{ t[NR] = $1 } END { printf "%.0f (%d)\n", t[int((NR + 1) / 2)] / 1000, NR }'
}
printf '%-14s %14s %14s %14s\n' 'ms, median (n)' 'run true' 'python3 -c 1' 'exec true'
for m in "${works[@]}"; do
	printf '%-14s %14s %14s %14s\n' "$m" "$(median "$work/$m-true")" "$(median "$work/$m-python")" "$(median "$work/$m-exec")"
done
"$lumina" version
! type msb >/dev/null 2>&1 || msb --version
! type runsc >/dev/null 2>&1 || runsc --version | head -n1
