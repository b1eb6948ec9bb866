#!/bin/sh
# install.sh: install lumina's command line into ~/.local/bin, from a release,
# verified. For macOS on arm64 and Linux on amd64 and arm64.
#
#   LUMINA_VERSION      tag of the release (default: the latest)
#   LUMINA_INSTALL_DIR  where to (default: ~/.local/bin)
#   LUMINA_PUBLIC_KEY   minisign key that must have signed the release
#   LUMINA_REPO, LUMINA_GITHUB_URL   another repository or GitHub server
set -eu

fail() {
	echo "install.sh: $*" >&2
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# fetch URL FILE
fetch() {
	if have curl; then
		# Redirects may not leave encryption behind.
		case $1 in
		https://*) curl -fsSL --retry 3 --proto '=https' --proto-redir '=https' -o "$2" "$1" ;;
		*) curl -fsSL --retry 3 -o "$2" "$1" ;;
		esac
	elif have wget; then
		case $1 in
		https://*) wget -q --https-only -O "$2" "$1" ;;
		*) wget -q -O "$2" "$1" ;;
		esac
	else
		fail "curl or wget is needed"
	fi || fail "cannot fetch $1"
}

sha256() {
	if have sha256sum; then
		sha256sum "$1"
	elif have shasum; then
		shasum -a 256 "$1"
	else
		fail "sha256sum or shasum is needed to verify the download"
	fi | cut -d ' ' -f 1
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

	fetch "$from/SHA256SUMS" "$work/SHA256SUMS"
	if [ -n "${LUMINA_PUBLIC_KEY:-}" ]; then
		have minisign || fail "LUMINA_PUBLIC_KEY is set, and minisign is needed to verify with it; install minisign"
		fetch "$from/SHA256SUMS.minisig" "$work/SHA256SUMS.minisig"
		comment=$(minisign -Q -V -P "$LUMINA_PUBLIC_KEY" -m "$work/SHA256SUMS" 2>/dev/null) ||
			fail "the signature of SHA256SUMS is not of LUMINA_PUBLIC_KEY: nothing was installed"
		case $comment in
		"lumina release ${LUMINA_VERSION:-} SHA256SUMS") ;;
		"lumina release "*" SHA256SUMS") [ -z "${LUMINA_VERSION:-}" ] ||
			fail "SHA256SUMS is signed as \"$comment\", not of release $LUMINA_VERSION: nothing was installed" ;;
		*) fail "SHA256SUMS is signed as \"$comment\": nothing was installed" ;;
		esac
	fi
	want=$(awk -v name="$name" '$2 == name { print $1 }' "$work/SHA256SUMS")
	case $want in
	*[!0-9a-f]* | "") fail "SHA256SUMS of the release has no digest of $name: nothing was installed" ;;
	esac
	[ ${#want} = 64 ] || fail "SHA256SUMS of the release has no digest of $name: nothing was installed"
	fetch "$from/$name" "$work/lumina"
	got=$(sha256 "$work/lumina")
	[ "$got" = "$want" ] || fail "$name has the digest $got, SHA256SUMS says $want: nothing was installed; try again"
	chmod 0755 "$work/lumina"
	mv -f "$work/lumina" "$dir/lumina"
	echo "install.sh: installed $dir/lumina" >&2
	case :$PATH: in
	*:"$dir":*) ;;
	*) echo "install.sh: put it in your PATH: export PATH=\"$dir:\$PATH\"" >&2 ;;
	esac
}

main
