#!/bin/sh
# deb.sh PROGRAM VERSION ARCH MANUAL OUT: pack a program for Debian and what derives
# from it, with the man pages and completion scripts that make man put into MANUAL.
# The same input gives the same bytes.
set -eu
[ $# = 5 ] || { echo "usage: deb.sh PROGRAM VERSION ARCH MANUAL OUT" >&2; exit 2; }
program=$1 version=$2 arch=$3 manual=$4 out=$5
here=$(dirname "$0")

# Debian's versions begin with a digit, and what follows ~ is older than what does not.
version=$(printf %s "${version#v}" | sed 's/-\([0-9]*\)-g/+\1.g/; s/-/~/g')
case $version in
[0-9]*) ;;
*) version="0~$version" ;;
esac
case $arch in
amd64) qemu=qemu-system-x86 firmware=ovmf ;;
arm64) qemu=qemu-system-arm firmware=qemu-efi-aarch64 ;;
*) echo "deb.sh: there is no lumina for $arch: amd64 or arm64" >&2; exit 2 ;;
esac

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
umask 022
chmod 755 "$root"
mkdir -p "$root/DEBIAN" "$root/usr/bin" "$root/usr/share/man/man1" "$root/usr/share/doc/lumina" \
	"$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d"
install -m 755 "$program" "$root/usr/bin/lumina"
for page in "$manual"/man1/*.1; do
	cp "$page" "$root/usr/share/man/man1"
done
gzip -9n "$root"/usr/share/man/man1/*
cp "$manual/completions/lumina" "$root/usr/share/bash-completion/completions/lumina"
cp "$manual/completions/_lumina" "$root/usr/share/zsh/vendor-completions/_lumina"
cp "$manual/completions/lumina.fish" "$root/usr/share/fish/vendor_completions.d/lumina.fish"
cp "$here/../LICENSE" "$root/usr/share/doc/lumina/copyright"
gzip -9n <"$here/licences/out/THIRD_PARTY_NOTICES.md" >"$root/usr/share/doc/lumina/THIRD_PARTY_NOTICES.md.gz"
gzip -9n <"$here/../CHANGELOG.md" >"$root/usr/share/doc/lumina/changelog.gz"
chmod -R u=rwX,go=rX "$root"
cat >"$root/DEBIAN/control" <<EOF
Package: lumina
Version: $version
Architecture: $arch
Maintainer: The Lumina authors <lumina@users.noreply.github.com>
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Depends: $qemu
Recommends: ca-certificates, $firmware
Section: admin
Priority: optional
Homepage: https://github.com/abdul-abdi/lumina
Description: subprocess.run() for virtual machines
 Lumina turns container images into bootable Linux images and runs commands in
 virtual machines of them: one command in a fresh VM, or thousands in one that
 stays. Results are JSON. A VM sees nothing of the host.
EOF
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0} dpkg-deb --root-owner-group -Z"${DPKG_DEB_COMPRESSOR_TYPE:-xz}" --build "$root" "$out" >&2
