#!/bin/bash
# mac-check.sh [LUMINA [REFERENCE]]: what only a Mac can try, step after step, and a
# report to paste into an issue on the standard output. LUMINA is the program
# (bin/lumina), REFERENCE the container image that its VMs run. Everything happens in
# a state directory of its own. Exits with 1 when a step fails.
#
# With CHECK_DESKTOP=FILE.iso an installation ISO is booted in a window, too, with
# CHECK_MACOS=1 a macOS is installed (Apple silicon, 15 GB): both want somebody who looks.
# shellcheck disable=SC2317 # most functions are called by step
set -u
lumina=${1:-bin/lumina}
reference=${2:-docker.io/library/debian:bookworm-slim}
case $lumina in */*) lumina=$(cd "$(dirname "$lumina")" && pwd)/$(basename "$lumina") ;; esac

# Not in TMPDIR, whose name is so long on a Mac that a session's socket, whose path has
# 103 bytes at most, has no room.
work=$(mktemp -d /tmp/lumina-check.XXXXXX) || exit 1
export LUMINA_HOME=$work/home
export LUMINA_FORMAT=text
finish() {
	"$lumina" session stop check forward >/dev/null 2>&1
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
failed=0

# step NAME COMMAND...: runs it for 10 minutes at most, and reports how it went.
step() {
	local name=$1 code=0 begin=$SECONDS
	shift
	(
		"$@" &
		command=$!
		(
			sleep 600 &
			timer=$!
			trap 'kill "$timer"; exit' TERM
			wait "$timer" && kill "$command"
		) >/dev/null 2>&1 &
		guard=$!
		wait "$command"
		code=$?
		kill "$guard" 2>/dev/null
		exit "$code"
	) >"$work/out" 2>&1 </dev/null || code=$?
	if [ "$code" = 0 ]; then
		echo "- [x] $name ($((SECONDS - begin)) s)"
	else
		failed=1
		echo "- [ ] **$name: exit code $code** ($((SECONDS - begin)) s)"
	fi
	if [ "$code" != 0 ] || [ "${show:-}" = 1 ]; then
		echo
		tail -n 40 "$work/out" | sed 's/^/        /'
		echo
	fi
}

# is WANT COMMAND...: the command prints exactly this.
is() {
	local want=$1 got
	shift
	got=$("$@") || return
	[ "$got" = "$want" ] || {
		echo "got \"$got\", want \"$want\""
		return 1
	}
}

# exits CODE COMMAND...: the command ends with this code.
exits() {
	local want=$1 code=0
	shift
	"$@" || code=$?
	[ "$code" = "$want" ] || {
		echo "exit code $code, want $want"
		return 1
	}
}

doctor() { # 1 is that something could be better
	local code=0
	"$lumina" doctor || code=$?
	[ "$code" -le 1 ]
}

entitled() {
	codesign --verify --verbose "$lumina" && codesign -d --entitlements - "$lumina" 2>&1 | tee /dev/stderr | grep -q com.apple.security.virtualization
}

volume() {
	"$lumina" volume create data --size 1.3GB &&
		"$lumina" run --image check --volume data:/data 'echo kept >/data/file' &&
		is kept "$lumina" run --image check --volume data:/data 'cat /data/file' &&
		"$lumina" volume rm data
}

directory() { # below /tmp, which is a link
	mkdir -p "$work/shared" && echo here >"$work/shared/file" &&
		is here "$lumina" run --image check --volume "$work/shared:/shared" 'cat /shared/file; echo back >/shared/answer' &&
		is back cat "$work/shared/answer"
}

copies() {
	mkdir -p "$work/tree/d" && echo content >"$work/tree/d/file" && ln -s d/file "$work/tree/link" &&
		"$lumina" cp "$work/tree" check:/tmp/tree &&
		is content "$lumina" exec check 'cat /tmp/tree/link' &&
		"$lumina" cp check:/tmp/tree "$work/back" &&
		diff -r "$work/tree" "$work/back"
}

forward() {
	local port=$((20000 + RANDOM % 20000))
	"$lumina" session start --name forward --image check --forward "$port:8080" || return
	# shellcheck disable=SC2016 # the guest expands it
	"$lumina" exec --detach forward 'while true; do perl -MIO::Socket -e '\''$l = IO::Socket::INET->new(LocalPort => 8080, Listen => 1, ReuseAddr => 1); $c = $l->accept; print $c "through\n"'\''; done' || return
	sleep 2
	# shellcheck disable=SC2016 # the other shell expands it
	is through bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && cat <&3' "$port"
	local code=$?
	"$lumina" session stop forward
	return "$code"
}

again() { # the second start is that of the template, if there is one
	"$lumina" run --image check true && "$lumina" run --image check true && doctor
}

echo "### Lumina on a Mac"
echo
echo "$(date -u +%Y-%m-%dT%H:%MZ), $("$lumina" version 2>&1 | head -n 1)"
echo
if [ "$(uname -s)" = Darwin ]; then
	sw_vers | sed 's/^/    /'
	sysctl hw.model hw.memsize machdep.cpu.brand_string kern.hv_support 2>/dev/null | sed 's/^/    /'
	echo
	show=1 step "signature and entitlement" entitled
else
	echo "This is $(uname -s), not a Mac."
	echo
fi
show=1 step "doctor" doctor
step "images create from $reference" "$lumina" images create check --from "$reference"
step "a name in another case is not an image's" exits 125 "$lumina" images inspect CHECK
step "run" is hello "$lumina" run --image check 'echo hello'
step "a command's exit code" exits 7 "$lumina" run --image check 'exit 7'
step "--timeout" exits 124 "$lumina" run --image check --timeout 5s 'sleep 600'
step "a guest that crashes is told" exits 125 "$lumina" run --image check 'echo c >/proc/sysrq-trigger; sleep 600'
step "a guest that resets is told" exits 125 "$lumina" run --image check 'echo b >/proc/sysrq-trigger; sleep 600'
step "a volume, twice" volume
step "a shared directory" directory
step "the network" "$lumina" run --image check 'getent hosts example.org'
step "session start" "$lumina" session start --name check --image check
step "exec" is hello "$lumina" exec check 'echo hello'
step "cp, both ways" copies
step "session stop" "$lumina" session stop check
step "--forward" forward
show=1 step "starts from a template" again
show=1 step "bench boot" "$lumina" bench boot --image check
if [ "$(uname -s)-$(uname -m)" = Darwin-arm64 ]; then
	step "an image with --rosetta" "$lumina" images create rosetta --rosetta --from "$reference"
	step "the translator is registered" "$lumina" run --image rosetta 'grep -x enabled /proc/sys/fs/binfmt_misc/rosetta'
fi
if [ -n "${CHECK_DESKTOP:-}" ]; then
	step "desktop create" "$lumina" desktop create desktop --iso "$CHECK_DESKTOP" --force
	step "desktop boot, 1 minute in a window" exits 124 "$lumina" desktop boot desktop --timeout 1m
fi
if [ -n "${CHECK_MACOS:-}" ]; then
	step "desktop install-macos" "$lumina" desktop install-macos mac
fi
echo
if [ "$failed" = 0 ]; then echo "All steps passed."; else echo "Some steps failed."; fi
exit "$failed"
