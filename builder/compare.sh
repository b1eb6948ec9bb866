#!/bin/sh
# compare.sh [RUNS]: what lumina and the tools that one would use instead take to make
# the same thing, by turns: the median of RUNS times (5), and the most memory that one
# program of each took. Root file systems of one layer and of ten, with and without the
# trial boot; and, once, a Dockerfile, cold and after one file changed, and what its RUNs
# take on this host and in a VM. Rows are printed as soon as they are known.
# Debian's packages time, umoci, e2fsprogs, erofs-utils and buildah are needed, Go, and
# root for buildah; virt-make-fs is measured when it is there (guestfs-tools, and a
# kernel in /boot for its own VM; where /dev/kvm does not work,
# LIBGUESTFS_BACKEND_SETTINGS=force_tcg). LUMINA_COMPARE=roots or dockerfile does half.
# It takes about four minutes with 5 RUNS on 2 idle CPUs without KVM, and ends, with the
# rows that it has, after LUMINA_COMPARE_LIMIT seconds (1200).
set -eu
runs=${1:-5} which=${LUMINA_COMPARE:-roots dockerfile} limit=${LUMINA_COMPARE_LIMIT:-1200}
begun=$(date +%s)
layout=${LUMINA_CACHE:-$HOME/.cache/lumina}/quickstart/debian # of quickstart.sh
here=$(cd "$(dirname "$0")" && pwd)
lumina=$here/../bin/lumina
[ -e "$layout/index.json" ] || { echo "compare: no image $layout: run quickstart.sh first" >&2; exit 1; }
work=$(mktemp -d)
child= # what is being measured
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export LUMINA_HOME="$work/home" LIBGUESTFS_BACKEND=direct
(cd "$here" && go build -o "$work/floor" ./floor)

# once METHOD COMMAND: does it in a folder of its own, and keeps seconds and memory.
once() {
	left=$((limit - $(date +%s) + begun))
	[ "$left" -gt 0 ] || { echo "compare: the limit of $limit s has passed before $1" >&2; exit 1; }
	mkdir "$work/in"
	(cd "$work/in" && exec timeout "$left" /usr/bin/time -f '%e %M' -o "$work/time" sh -c "$2" >"$work/log" 2>&1) &
	child=$!
	wait "$child" || {
		echo "compare: $1 failed, or took longer than the $left s that were left:" >&2
		tail -n 40 "$work/log" >&2
		exit 1
	}
	child=
	rm -rf "$work/in"
	[ "$run" = 0 ] || cat "$work/time" >>"$work/times.$1"
}

# row METHOD
row() {
	median=$(sort -n "$work/times.$1" | awk '{ t[NR] = $1 } END { printf "%.2f", (t[int((NR + 1) / 2)] + t[int(NR / 2) + 1]) / 2 }')
	peak=$(awk '$2 > most { most = $2 } END { printf "%d MB", most / 1000 }' "$work/times.$1")
	printf '%-34s %8s %8s\n' "$1" "$median" "$peak"
}

# tenLayers makes the layout "$work/ten" of what is in that of one layer.
tenLayers() {
	largest=$(find "$layout/blobs/sha256" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
	mkdir "$work/tree"
	tar -xzf "$largest" -C "$work/tree"
	tar -tzf "$largest" >"$work/names"
	split -n l/10 -d "$work/names" "$work/part."
	umoci init --layout "$work/ten"
	umoci new --image "$work/ten:latest"
	for part in "$work"/part.*; do
		tar -cf "$work/part.tar" --no-recursion -C "$work/tree" -T "$part"
		umoci raw add-layer --image "$work/ten:latest" "$work/part.tar"
	done
	rm -rf "$work/tree" "$work"/part.*
}

roots() {
	largest=$(find "$layout/blobs/sha256" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
	tenLayers
	unpack="umoci unpack"
	[ "$(id -u)" = 0 ] || unpack="$unpack --rootless"
	methods="floor lumina lumina,trial umoci+mkfs.erofs umoci+mke2fs"
	if type virt-make-fs >/dev/null 2>&1; then methods="$methods umoci+virt-make-fs"; fi
	run=0 # the first is not counted: it fills the page cache
	printf '%-34s %8s %8s\n' METHOD SECONDS PEAK
	while [ "$run" -le "$runs" ]; do
		once floor "'$work/floor' '$largest' root"
		for n in 1 10; do
			image=$layout:latest
			[ $n = 1 ] || image=$work/ten:latest
			for method in $methods; do
				case $method in
				lumina) do="rm -rf '$LUMINA_HOME/images' && '$lumina' images create compare --from 'oci:$image' --no-verify" ;;
				lumina,trial) do="rm -rf '$LUMINA_HOME/images' && '$lumina' images create compare --from 'oci:$image'" ;;
				umoci+mke2fs) do="$unpack --image '$image' bundle && mke2fs -q -t ext4 -d bundle/rootfs root.ext4 1G" ;;
				umoci+mkfs.erofs) do="$unpack --image '$image' bundle && mkfs.erofs --quiet root.erofs bundle/rootfs" ;;
				umoci+virt-make-fs) do="$unpack --image '$image' bundle && virt-make-fs --type=ext4 --size=+256M bundle/rootfs root.ext4" ;;
				floor) continue ;;
				esac
				once "$method,layers=$n" "$do"
			done
		done
		run=$((run + 1))
	done
	row floor
	for n in 1 10; do
		for method in ${methods#floor }; do row "$method,layers=$n"; done
	done
}

# dockerfile: apt-get, pip, COPY of 10,000 files, two stages. The Python package is of
# the context, so that only Debian's mirror is needed.
dockerfile() {
	[ "$(id -u)" = 0 ] || { echo "compare: the Dockerfile is left out: buildah needs root" >&2; return; }
	mkdir -p "$work/context/tree" "$work/context/hello"
	n=0
	while [ $n -lt 100 ]; do
		mkdir "$work/context/tree/$n"
		seq 1 100 | (cd "$work/context/tree/$n" && while read -r k; do echo "$n $k" >"$k"; done)
		n=$((n + 1))
	done
	echo 'print("hello")' >"$work/context/hello/hello.py"
	printf 'from setuptools import setup\nsetup(name="hello", version="1", py_modules=["hello"])\n' >"$work/context/hello/setup.py"
	cat >"$work/context/Dockerfile" <<-'EOF'
		FROM base AS build
		RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-setuptools python3-wheel
		COPY hello /hello
		RUN pip install --no-index --no-build-isolation --break-system-packages --target /site /hello
		FROM base
		COPY --from=build /site /site
		COPY tree /tree
	EOF
	buildah="buildah --root '$work/store' --runroot '$work/run'"
	printf '%-34s %8s %8s\n' METHOD SECONDS PEAK
	$lumina images create base --from "oci:$layout:latest" --no-verify >/dev/null
	ln -s "$layout" "$work/base" # it is named after its folder
	(cd "$work" && eval "$buildah pull -q oci:base:latest" >/dev/null)
	bud="$buildah bud --isolation chroot --layers -t compare '$work/context'"
	ours="'$lumina' images create dockerfile --replace --no-verify --progress plain -f '$work/context/Dockerfile' '$work/context'"
	run=1
	once buildah,cold "$bud"
	row buildah,cold
	once lumina,cold "$ours"
	row lumina,cold
	# The same commands, on this host and in the VM: what emulation costs.
	awk '/^#[0-9]+ \[.*RUN /{ name[$1] = ($5 == "apt-get" || $4 == "apt-get") ? "apt-get" : "pip" } /DONE/ { sub("s", "", $3); if (name[$1]) printf "%-34s %8.2f\n", "RUN " name[$1] ", in the VM", $3 }' "$work/log"
	eval "$buildah from --name native oci:base:latest" >/dev/null
	for step in apt-get pip; do
		command=$(sed -n "s/^RUN \($step .*\)/\1/p" "$work/context/Dockerfile")
		once "RUN $step, in a chroot" "$buildah run --isolation chroot -v '$work/context/hello:/hello' native -- sh -c '$command'"
		row "RUN $step, in a chroot"
	done
	eval "$buildah rm native" >/dev/null
	while [ "$run" -le "$runs" ]; do
		echo "changed $run" >"$work/context/tree/50/50"
		once buildah,rebuild "$bud"
		once lumina,rebuild "$ours"
		run=$((run + 1))
	done
	row buildah,rebuild
	row lumina,rebuild
}

for what in $which; do "$what"; done
echo "all of it: $(($(date +%s) - begun)) s" >&2
