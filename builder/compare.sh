#!/bin/sh
# compare.sh [RUNS]: make a root file system of one container image with lumina
# and with the tools one would use instead, RUNS times (5) by turns, and print the
# median time and the most memory that one program of each took. Debian's packages
# time, umoci, e2fsprogs and erofs-utils are needed; virt-make-fs is measured when
# it is there (guestfs-tools, and a kernel in /boot for its own VM; where /dev/kvm
# does not work, LIBGUESTFS_BACKEND_SETTINGS=force_tcg).
set -eu
runs=${1:-5}
layout=${LUMINA_CACHE:-$HOME/.cache/lumina}/quickstart/debian:latest # of quickstart.sh
lumina=$(cd "$(dirname "$0")/.." && pwd)/bin/lumina
[ -e "${layout%:*}/index.json" ] || { echo "compare: no image ${layout%:*}: run quickstart.sh first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export LUMINA_HOME="$work/home" LIBGUESTFS_BACKEND=direct

# script METHOD: what makes "$out" of the image, in a folder of its own.
script() {
	unpack="umoci unpack --image '$layout' bundle"
	[ "$(id -u)" = 0 ] || unpack="$unpack --rootless"
	case $1 in
	lumina) echo "'$lumina' images create compare --from 'oci:$layout' --no-verify" ;;
	umoci+mke2fs) echo "$unpack && mke2fs -q -t ext4 -d bundle/rootfs root.ext4 1G" ;;
	umoci+mkfs.erofs) echo "$unpack && mkfs.erofs --quiet root.erofs bundle/rootfs" ;;
	umoci+virt-make-fs) echo "$unpack && virt-make-fs --type=ext4 --size=+256M bundle/rootfs root.ext4" ;;
	esac
}

methods="lumina umoci+mke2fs umoci+mkfs.erofs"
if type virt-make-fs >/dev/null 2>&1; then methods="$methods umoci+virt-make-fs"; fi
run=0 # the first is not counted: it fills the page cache
while [ "$run" -le "$runs" ]; do
	for method in $methods; do
		dir=$work/$method
		mkdir "$dir"
		(cd "$dir" && /usr/bin/time -f '%e %M' -o time sh -c "$(script "$method")" >log 2>&1) || {
			echo "compare: $method failed:" >&2
			cat "$dir/log" >&2
			exit 1
		}
		[ "$run" = 0 ] || cat "$dir/time" >>"$work/times.$method"
		rm -rf "$dir"
	done
	run=$((run + 1))
done

printf '%-20s %8s %8s\n' METHOD SECONDS PEAK
for method in $methods; do
	median=$(sort -n "$work/times.$method" | awk '{ t[NR] = $1 } END { printf "%.2f", (t[int((NR + 1) / 2)] + t[int(NR / 2) + 1]) / 2 }')
	peak=$(awk '$2 > most { most = $2 } END { printf "%d MB", most / 1000 }' "$work/times.$method")
	printf '%-20s %8s %8s\n' "$method" "$median" "$peak"
done
