#!/usr/bin/env bash
# build.sh amd64|arm64: build the guest kernel and leave it, compressed, in out/.
#
# Input: the fragments and patches beside this script, the pinned source (file "version"), the compiler.
# Output: out/kernel-ARCH.zst, out/ARCH.json and, for amd64, out/bzimage-amd64.zst.
# The same input gives the same kernel bytes, in whatever folder it is built. What was built is kept in
# ${LUMINA_CACHE:-~/.cache/lumina}/kernel/DIGEST, DIGEST being that of the inputs.
#
# LUMINA_KERNEL_SOURCE    source tarball, instead of the one Debian's package installs
# LUMINA_KERNEL_UNPINNED  1: accept a tarball whose digest is not the pinned one
# LUMINA_KERNEL_FRAGMENT  one more file of options, which win over those beside this script
# LUMINA_KERNEL_OUT       folder to leave the kernel in, instead of out/
# LUMINA_JOBS             parallel compilers (default: one a processor)
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022
unset MAKEFLAGS MFLAGS MAKELEVEL # a make that calls this one would have the kernel's say where it is

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() {
	printf 'kernel: %s\n' "$*" >&2
	exit 1
}

say() { printf 'kernel: %s\n' "$*" >&2; }

# pinned KEY: the value of KEY in the file "version".
pinned() { sed -n "s/^$1=//p" "$here/version"; }

sha256() { sha256sum "$@" | cut -d' ' -f1; }

# setup: what differs between the architectures. "steps" is how many lines make prints, for the progress shown.
setup() {
	case $arch in
	amd64) karch=x86_64 cross=x86_64-linux-gnu- cross_package=gcc-x86-64-linux-gnu targets=(vmlinux bzImage) steps=2300 ;;
	arm64) karch=arm64 cross=aarch64-linux-gnu- cross_package=gcc-aarch64-linux-gnu targets=(Image) steps=2300 ;;
	*) die "unknown architecture \"$arch\": say amd64 or arm64" ;;
	esac
	[[ $(uname -s) == Linux ]] || die "the kernel is built on Linux; on another system use a Debian virtual machine or container"
	if [[ $(uname -m) == "${karch/arm64/aarch64}" ]]; then
		cross='' cross_package=gcc
	fi
	# Tools that would be recorded in the configuration, which the kernel carries, but play no part in the build.
	make_args=(ARCH="$karch" CROSS_COMPILE="$cross" RUSTC=none PAHOLE=none BINDGEN=none)
}

# install_packages: the Debian packages that are missing; root installs them, others are told how to.
install_packages() {
	local missing=() need
	for need in bc:bc bison:bison flex:flex gcc:gcc make:make patch:patch perl:perl xz:xz-utils zstd:zstd flock:util-linux \
		"${cross}gcc:$cross_package"; do
		command -v "${need%%:*}" >/dev/null || missing+=("${need#*:}")
	done
	[[ -e /usr/include/libelf.h ]] || missing+=(libelf-dev libc6-dev)
	[[ -e $source ]] || [[ -n ${LUMINA_KERNEL_SOURCE:-} ]] || missing+=("$(pinned package)")
	((${#missing[@]})) || return 0
	command -v apt-get >/dev/null || die "missing, by their Debian names: ${missing[*]}"
	[[ $(id -u) == 0 ]] || die "missing packages; as root, run: apt-get install --no-install-recommends ${missing[*]}"
	say "installing ${missing[*]}"
	apt-get update -qq >&2
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2 ||
		die "installing ${missing[*]}: apt-get failed; if a newer $(pinned package | cut -d= -f1) took the place of the pinned one, see LUMINA_KERNEL_SOURCE in build.sh"
}

# check_source: the tarball is there and is the pinned one. Sets source_digest.
check_source() {
	[[ -e $source ]] || die "no kernel source \"$source\": install $(pinned package), or name a tarball in LUMINA_KERNEL_SOURCE"
	source_digest=$(sha256 "$source")
	[[ $source_digest == "$(pinned sha256)" ]] && return
	[[ ${LUMINA_KERNEL_UNPINNED:-} == 1 ]] || die "\"$source\" has sha256 $source_digest, tested is $(pinned sha256).
Install $(pinned package), or name its tarball in LUMINA_KERNEL_SOURCE; or set LUMINA_KERNEL_UNPINNED=1 to build this one untested."
	say "building \"$source\", which is not the pinned source"
}

# options: every option asked for, one a line; where fragments differ, the last one wins.
options() {
	cat "$here/common.config" "$here/$arch.config" ${LUMINA_KERNEL_FRAGMENT:+"$LUMINA_KERNEL_FRAGMENT"} | awk '
		/^CONFIG_[A-Za-z0-9_]+=/ { name = substr($0, 1, index($0, "=") - 1) }
		/^# CONFIG_[A-Za-z0-9_]+ is not set$/ { name = $2 }
		name != "" { if (!(name in line)) order[++n] = name; line[name] = $0; name = ""; next }
		!/^[[:space:]]*(#|$)/ { print "kernel: \"" $0 "\" is no option; write CONFIG_NAME=value" >"/dev/stderr"; bad = 1; exit 1 }
		END { if (!bad) for (i = 1; i <= n; i++) print line[order[i]] }'
}

# input_digest: names everything the result depends on.
input_digest() {
	local compiler="missing"
	command -v "${cross}gcc" >/dev/null && compiler=$("${cross}gcc" --version | head -n1; "${cross}ld" --version | head -n1)
	{
		printf '%s\n' "$arch" "$source_digest" "$compiler"
		cat "$here/build.sh" "$here/version" "$here"/patches/*.patch
		options
	} | sha256sum | cut -d' ' -f1
}

# check_config FILE: every option asked for has survived in FILE.
check_config() {
	local line name lost=()
	while read -r line; do
		case $line in
		CONFIG_*=*) grep -qxF -- "$line" "$1" || lost+=("$line") ;;
		'# CONFIG_'*' is not set')
			name=${line#\# } name=${name%% *}
			if grep -q "^$name=" "$1"; then lost+=("$line"); fi
			;;
		esac
	done < <(options)
	((${#lost[@]} == 0)) || die "options asked for that the kernel's own rules dropped (a dependency is missing, or the name changed):
$(printf '  %s\n' "${lost[@]}")"
}

# progress: copies make's output to the log and shows how far it is, one line that is rewritten on a terminal.
progress() {
	local line count=0 shown
	while IFS= read -r line; do
		printf '%s\n' "$line" >&3
		[[ $line == '  '[A-Z]* ]] || continue
		count=$((count + 1))
		shown=$((count < steps ? 100 * count / steps : 99))
		if [[ -t 2 ]]; then
			printf '\rkernel: building %s: %2d %%, %d:%02d \e[K' "$arch" $shown $((SECONDS / 60)) $((SECONDS % 60)) >&2
		elif ((count % (steps / 10) == 0)); then
			say "building $arch: $shown %, $((SECONDS / 60)) min $((SECONDS % 60)) s"
		fi
	done
	if [[ -t 2 ]]; then printf '\r\e[K' >&2; fi
}

# compile DIR: unpacks, configures and builds in DIR/source; leaves the result in DIR/result. A build that was
# interrupted goes on where it was.
compile() {
	local dir=$1
	mkdir -p "$dir"
	if [[ ! -d $dir/source ]]; then
		say "unpacking the source"
		rm -rf "$dir/unpack"
		mkdir "$dir/unpack"
		tar -C "$dir/unpack" --strip-components=1 --no-same-owner -xf "$source" || die "unpacking \"$source\" failed"
		local patch
		for patch in "$here"/patches/*.patch; do
			patch -s -d "$dir/unpack" -p1 <"$patch" || die "applying $(basename "$patch") failed"
		done
		mv "$dir/unpack" "$dir/source"
	fi
	cd "$dir/source"

	# Options no fragment names are off, whatever their default: what the kernel holds is written down.
	options >"$dir/fragments"
	make -s "${make_args[@]}" KCONFIG_ALLCONFIG="$dir/fragments" allnoconfig >"$dir/log" 2>&1 ||
		die "configuring failed: $(tail -n5 "$dir/log")"
	check_config .config

	# Building inside the source tree keeps every path the compiler sees relative.
	export KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=lumina KBUILD_BUILD_HOST=lumina KBUILD_BUILD_VERSION=1
	if ! make -j"${LUMINA_JOBS:-$(nproc)}" "${make_args[@]}" "${targets[@]}" 2>&1 3>&- | progress 3>>"$dir/log"; then
		tail -n30 "$dir/log" >&2
		die "building failed; the whole log is \"$dir/log\""
	fi

	rm -rf "$dir/result"
	mkdir "$dir/result"
	cp .config "$dir/result/config"
	make -s "${make_args[@]}" kernelrelease >"$dir/result/version"
	case $arch in
	amd64)
		"${cross}strip" -s -R .comment -o "$dir/result/kernel" vmlinux
		cp arch/x86/boot/bzImage "$dir/result/bzImage"
		;;
	arm64) cp arch/arm64/boot/Image "$dir/result/kernel" ;;
	esac
}

# publish DIR: compresses the result in DIR into $out; the description comes last, so it never names what is not there.
publish() {
	local dir=$1 efi='' file
	mkdir -p "$out"
	compress() {
		zstd -q -f -19 --single-thread "$1" -o "$out/.$2.tmp"
		mv "$out/.$2.tmp" "$out/$2"
	}
	compress "$dir/kernel" "kernel-$arch.zst"
	if [[ -e $dir/bzImage ]]; then
		compress "$dir/bzImage" "bzimage-$arch.zst"
		efi=$(printf ',\n  "efi": {"sha256": "%s", "size": %d}' "$(sha256 "$dir/bzImage")" "$(stat -c %s "$dir/bzImage")")
	fi
	file=$out/.$arch.json.tmp
	printf '{\n  "version": "%s",\n  "architecture": "%s",\n  "sha256": "%s",\n  "size": %d,\n  "inputs": "%s"%s\n}\n' \
		"$(<"$dir/version")" "$arch" "$(sha256 "$dir/kernel")" "$(stat -c %s "$dir/kernel")" "$digest" "$efi" >"$file"
	mv "$file" "$out/$arch.json"
}

# published: $out holds what these inputs give.
published() {
	[[ -s $out/kernel-$arch.zst && ($arch != amd64 || -s $out/bzimage-$arch.zst) ]] &&
		grep -qsF "\"inputs\": \"$digest\"" "$out/$arch.json"
}

(($# == 1)) || die "usage: build.sh amd64|arm64"
arch=$1
setup
cache=${LUMINA_CACHE:-$HOME/.cache/lumina}/kernel
out=$(realpath -m "${LUMINA_KERNEL_OUT:-$here/out}")
source=${LUMINA_KERNEL_SOURCE:-/usr/src/linux-source-6.12.tar.xz}
# A kernel of the pinned source that is already built needs no source; one named on purpose is always checked.
source_digest=$(pinned sha256)
[[ -z ${LUMINA_KERNEL_SOURCE:-}${LUMINA_KERNEL_UNPINNED:-} ]] || check_source
if [[ -n ${LUMINA_KERNEL_FRAGMENT:-} ]]; then
	[[ -r $LUMINA_KERNEL_FRAGMENT ]] || die "cannot read the fragment \"$LUMINA_KERNEL_FRAGMENT\""
	LUMINA_KERNEL_FRAGMENT=$(realpath "$LUMINA_KERNEL_FRAGMENT")
fi
options >/dev/null || exit 1
digest=$(input_digest)
if published; then exit 0; fi

install_packages
digest=$(input_digest) # The compiler may be new.
mkdir -p "$cache"
exec 9>"$cache/$digest.lock"
flock 9
if [[ ! -d $cache/$digest ]]; then
	check_source
	SECONDS=0
	compile "$cache/$digest.work"
	mv "$cache/$digest.work/result" "$cache/$digest"
	rm -rf "$cache/$digest.work"
	say "built $arch in $((SECONDS / 60)) min $((SECONDS % 60)) s"
fi
publish "$cache/$digest"
