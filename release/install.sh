#!/bin/sh
# install.sh: install lumina's command line into ~/.local/bin, from a release whose
# signature is verified before anything else of it is believed. For macOS on arm64
# and Linux on amd64 and arm64.
#
#   LUMINA_VERSION      tag of the release (default: the latest)
#   LUMINA_INSTALL_DIR  where to (default: ~/.local/bin)
#   LUMINA_PUBLIC_KEY   minisign key that must have signed the release (default:
#                       the keys below)
#   LUMINA_UNVERIFIED=1 install what has no key to be verified with
#   LUMINA_REPO, LUMINA_GITHUB_URL   another repository or GitHub server
set -eu

# The keys of release/sign/trusted.pub, separated by blanks. There is none until the
# first release.
trusted_keys=""

fail() {
	echo "install.sh: $*" >&2
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# fetch URL FILE KILOBYTES: at most so many of them, and not for ever.
fetch() {
	# Where the size is not told before, the limit of the shell holds: its units are
	# half a kilobyte, or one.
	(
		ulimit -f $(($3 * 2)) || exit 1
		if have curl; then
			# Redirects may not leave encryption behind.
			case $1 in
			https://*) secure="--proto =https --proto-redir =https" ;;
			*) secure= ;;
			esac
			# shellcheck disable=SC2086
			curl -fsSL $secure --retry 3 --max-redirs 10 --max-filesize $(($3 * 1024)) \
				--connect-timeout 30 --speed-limit 1024 --speed-time "$patience" -o "$2" "$1"
		elif have wget; then
			case $1 in
			https://*) secure=--https-only ;;
			*) secure= ;;
			esac
			# It knows no lowest speed.
			limit=
			if have timeout; then limit="timeout $((patience * 30))"; fi
			$limit wget -q $secure --tries=3 --timeout="$patience" -O "$2" "$1"
		else
			fail "curl or wget is needed"
		fi
	) || fail "cannot fetch $1, of which $3 KB are taken at most, and 1 KB a second at least"
}

# patience is how many seconds a server may send nothing, or next to nothing.
patience=60

sha256() {
	if have sha256sum; then
		sha256sum "$1"
	elif have shasum; then
		shasum -a 256 "$1"
	else
		fail "sha256sum or shasum is needed to verify the download"
	fi | cut -d ' ' -f 1
}

# signed_comment KEY FILE prints the comment that is signed with FILE in FILE.minisig,
# if KEY signed both.
signed_comment() {
	if have minisign; then
		minisign -Q -V -P "$1" -m "$2" 2>/dev/null
		return
	fi
	bytes "$(printf %s "$1")" key && bytes "$(sed -n 2p "$2.minisig")" signature && bytes "$(sed -n 4p "$2.minisig")" global || return 1
	comment=$(sed -n '3s/^trusted comment: //p' "$2.minisig")
	# Of a key: 2 bytes that say which kind, 8 that name it, the key; of a signature
	# the same, and of its kind whether the file or its digest is signed.
	part key 2 8 key.id && part signature 2 8 signature.id && cmp -s "$work/key.id" "$work/signature.id" || return 1
	{ printf '\060\052\060\005\006\003\053\145\160\003\041\000' && tail -c 32 "$work/key"; } >"$work/key.der"
	part signature 10 64 signature.file
	case $(dd if="$work/signature" bs=1 count=2 2>/dev/null) in
	ED) openssl dgst -blake2b512 -binary "$2" >"$work/message" ;;
	Ed) cat "$2" >"$work/message" ;;
	*) return 1 ;;
	esac
	{ cat "$work/signature.file" && printf %s "$comment"; } >"$work/commented"
	is_signed message signature.file && is_signed commented global && printf '%s\n' "$comment"
}

# bytes BASE64 NAME, and part NAME SKIP COUNT TO: files in the working directory.
bytes() { printf %s "$1" | openssl base64 -d -A >"$work/$2" 2>/dev/null; }
part() { dd if="$work/$1" of="$work/$4" bs=1 skip="$2" count="$3" 2>/dev/null; }

is_signed() {
	openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key.der" -rawin -in "$work/$1" -sigfile "$work/$2" >/dev/null 2>&1
}

# verify FILE: it is of the release, signed by a key that is trusted.
verify() {
	keys=${LUMINA_PUBLIC_KEY:-$trusted_keys}
	if [ -z "$keys" ]; then
		[ "${LUMINA_UNVERIFIED:-}" = 1 ] || fail "no key is known to verify the release with: set LUMINA_PUBLIC_KEY to its publisher's, or LUMINA_UNVERIFIED=1: nothing was installed"
		echo "install.sh: the release is not verified (LUMINA_UNVERIFIED)" >&2
		return
	fi
	have minisign || { have openssl && openssl list -public-key-algorithms 2>/dev/null | grep -qi ed25519; } ||
		fail "minisign, or OpenSSL 3, is needed to verify the release; install minisign: nothing was installed"
	fetch "$from/$1.minisig" "$work/$1.minisig" 64
	comment=
	for key in $keys; do
		comment=$(signed_comment "$key" "$work/$1") && break
		comment=
	done
	case $comment in
	"") fail "the signature of $1 is not of a key that is trusted${LUMINA_PUBLIC_KEY:+, LUMINA_PUBLIC_KEY}: nothing was installed" ;;
	"lumina release ${LUMINA_VERSION:-} $1") ;;
	"lumina release "*" $1") [ -z "${LUMINA_VERSION:-}" ] ||
		fail "$1 is signed as \"$comment\", not of release $LUMINA_VERSION: nothing was installed" ;;
	*) fail "$1 is signed as \"$comment\": nothing was installed" ;;
	esac
}

platform() {
	os=$(uname -s) arch=$(uname -m)
	# A shell under Rosetta says x86_64 of an arm64 Mac.
	if [ "$os" = Darwin ] && [ "$(sysctl -n sysctl.proc_translated 2>/dev/null)" = 1 ]; then
		arch=arm64
	fi
	case $os-$arch in
	Linux-x86_64 | Linux-amd64) echo linux-amd64 ;;
	Linux-aarch64 | Linux-arm64) echo linux-arm64 ;;
	Darwin-arm64) echo darwin-arm64 ;;
	*) fail "there is no lumina for $os on $arch: want macOS on arm64, or Linux on x86_64 or aarch64" ;;
	esac
}

# The whole script is read before anything happens.
main() {
	repo=${LUMINA_REPO:-abdul-abdi/lumina}
	base=${LUMINA_GITHUB_URL:-https://github.com}/$repo/releases
	if [ -n "${LUMINA_VERSION:-}" ]; then
		from=$base/download/$LUMINA_VERSION
	else
		from=$base/latest/download
	fi
	name=lumina-$(platform)
	dir=${LUMINA_INSTALL_DIR:-${HOME:?}/.local/bin}

	mkdir -p "$dir" || fail "cannot make $dir; set LUMINA_INSTALL_DIR"
	# Beside its place, so that it gets there at once or not at all.
	work=$(mktemp -d "$dir/.lumina-install.XXXXXX") || fail "cannot write to $dir; set LUMINA_INSTALL_DIR"
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP

	fetch "$from/SHA256SUMS" "$work/SHA256SUMS" 1024
	verify SHA256SUMS
	want=$(awk -v name="$name" '$2 == name { print $1 }' "$work/SHA256SUMS")
	case $want in
	*[!0-9a-f]* | "") fail "SHA256SUMS of the release has no digest of $name: nothing was installed" ;;
	esac
	[ ${#want} = 64 ] || fail "SHA256SUMS of the release has no digest of $name: nothing was installed"
	fetch "$from/$name" "$work/lumina" 524288
	got=$(sha256 "$work/lumina")
	[ "$got" = "$want" ] || fail "$name has the digest $got, SHA256SUMS says $want: nothing was installed; try again"
	chmod 0755 "$work/lumina"
	# What was verified needs no quarantine, in which macOS asks before it starts a program.
	if [ -n "$keys" ] && [ "$(uname -s)" = Darwin ]; then
		xattr -d com.apple.quarantine "$work/lumina" 2>/dev/null || true # mostly there is none
	fi
	mv -f "$work/lumina" "$dir/lumina"
	echo "install.sh: installed $dir/lumina" >&2
	case :$PATH: in
	*:"$dir":*) ;;
	*) echo "install.sh: put it in your PATH: export PATH=\"$dir:\$PATH\"" >&2 ;;
	esac
}

main
