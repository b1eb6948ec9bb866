#!/usr/bin/env bash
# build.sh amd64|arm64: build what starts the kernel of an exported disk, as ../out/loader-ARCH.efi.
#
# It needs no more than the compiler that ../build.sh needs. It stands apart from
# the kernels, whose build is keyed by their script.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
flags=(-std=gnu11 -Os -ffreestanding -fshort-wchar -fpic -fvisibility=hidden -fno-stack-protector -fno-asynchronous-unwind-tables
	-fcf-protection=none -mno-red-zone -fno-tree-loop-distribute-patterns -Wall -Wextra -Werror)
case ${1:-} in
amd64) machine=x86_64 ;;
arm64)
	machine=aarch64
	flags=("${flags[@]/-fcf-protection=none/-mstrict-align}")
	flags=("${flags[@]/-mno-red-zone/-mgeneral-regs-only}")
	;;
*)
	echo "usage: build.sh amd64|arm64" >&2
	exit 1
	;;
esac
cross=$machine-linux-gnu-
[[ $(uname -m) != "$machine" ]] || cross=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${cross}gcc" "${flags[@]}" -c -o "$work/loader.o" "$here/loader.c"
"${cross}gcc" -c -o "$work/header.o" "$here/header.S"
if "${cross}objdump" -r "$work/loader.o" | grep -qE 'R_X86_64_(64|32)|R_AARCH64_ABS'; then
	echo "loader: it has addresses that would need relocation" >&2
	exit 1
fi
"${cross}ld" -static --build-id=none -T "$here/loader.ld" -o "$work/loader.elf" "$work/header.o" "$work/loader.o"
"${cross}objcopy" -O binary -j .head -j .text "$work/loader.elf" "$work/loader.efi"
mkdir -p "$here/../out"
install -m 0644 "$work/loader.efi" "$here/../out/.loader-$1.tmp"
mv "$here/../out/.loader-$1.tmp" "$here/../out/loader-$1.efi"
