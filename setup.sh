#!/bin/sh
# setup.sh [--test]: install the Debian packages that Lumina is built and run
# with; with --test, also those that its tests use as real counterparts.
set -eu

packages="make git ca-certificates qemu-system-x86 qemu-system-arm qemu-utils
linux-source-6.12 gcc libc6-dev bc bison flex libelf-dev libssl-dev xz-utils zstd perl
mmdebstrap umoci skopeo jq ovmf qemu-efi-aarch64 swtpm"
[ "${1:-}" != --test ] || packages="$packages
gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static binfmt-support arch-test
docker-registry buildah busybox-static bzip2 erofs-utils e2fsprogs xfsprogs dosfstools mtools fdisk cpio tmux hyperfine shellcheck curl wget wrk openssh-client minisign
chromium debian-installer-12-netboot-amd64 grub-efi-amd64-bin grub-common xorriso shim-signed grub-efi-amd64-signed
qemu-system-gui xvfb xdotool
nginx-light apache2-bin haproxy bind9 sqlite3 python3"

# npm gets what the page of lumina app is made of, for make build. One that is there need not be Debian's.
command -v npm >/dev/null || packages="$packages nodejs npm"

missing=
for p in $packages; do
	dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
if [ -n "$missing" ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "setup: missing packages; as root, run: apt-get install --no-install-recommends$missing" >&2
		exit 1
	fi
	echo "setup: installing$missing" >&2
	# Tests start the servers they need: none is to run because it is installed.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
	fi
	apt-get update -qq
	# shellcheck disable=SC2086 # a list
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
fi

if ! command -v go >/dev/null; then
	echo "setup: Go is missing: install Go 1.26 or newer and put it in the PATH" >&2
	exit 1
fi
