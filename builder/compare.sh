#!/bin/sh
# compare.sh [TURNS]: what lumina and the tools that one would use instead take to make
# the same thing, by turns (5 of them). Each measurement is printed as soon as it is
# made, with the machine's load; then, of each method, the median of its seconds and of
# its CPU seconds, the most memory that one program of it took, and the median of what it
# took against another method in the same turn: the load of a machine changes between
# turns, less within one, and CPU seconds hardly at all. Root file systems of one layer and of ten, with and without the trial
# boot; a Dockerfile, cold (LUMINA_COMPARE_COLD turns, 1) and after one file changed, and
# what its RUNs take on this host and in a VM.
# Debian's packages time, umoci, e2fsprogs, erofs-utils and buildah are needed, Go, and
# root for buildah; virt-make-fs is measured when it is there (guestfs-tools, and a
# kernel in /boot for its own VM; where /dev/kvm does not work,
# LIBGUESTFS_BACKEND_SETTINGS=force_tcg). LUMINA_COMPARE=roots or dockerfile does half.
# It takes about six minutes on 2 idle CPUs without KVM, and ends, with what it
# has measured, after LUMINA_COMPARE_LIMIT seconds (470).
set -eu
turns=${1:-5} cold=${LUMINA_COMPARE_COLD:-1} which=${LUMINA_COMPARE:-roots dockerfile} limit=${LUMINA_COMPARE_LIMIT:-470}
begun=$(date +%s)
layout=${LUMINA_CACHE:-$HOME/.cache/lumina}/quickstart/debian # of quickstart.sh
here=$(cd "$(dirname "$0")" && pwd)
lumina=$here/../bin/lumina
[ -e "$layout/index.json" ] || { echo "compare: no image $layout: run quickstart.sh first" >&2; exit 1; }
work=$(mktemp -d)
child= # what is being measured
trap 'summary; [ -z "$child" ] || kill "$child" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
export LUMINA_HOME="$work/home" LIBGUESTFS_BACKEND=direct

# once METHOD COMMAND: does it in a folder of its own, and keeps seconds and memory.
once() {
	left=$((limit - $(date +%s) + begun))
	[ "$left" -gt 0 ] || { echo "compare: the limit of $limit s has passed before $1" >&2; exit 1; }
	mkdir "$work/in"
	(cd "$work/in" && exec timeout "$left" /usr/bin/time -f '%e %M %U %S' -o "$work/time" sh -c "$2" >"$work/log" 2>&1) &
	child=$!
	wait "$child" || {
		echo "compare: $1 failed, or took longer than the $left s that were left:" >&2
		tail -n 40 "$work/log" >&2
		exit 1
	}
	child=
	rm -rf "$work/in"
	keep "$1" "$turn" <"$work/time"
}

# keep METHOD TURN: keeps and prints the seconds, kilobytes, and CPU seconds of user and
# system that it reads. Turn 0 is not counted: it fills the page cache.
keep() {
	read -r seconds peak user system
	cpu=$(awk "BEGIN { print $user + $system }")
	printf '%-10s %-34s %8s %7.2f %6d MB   load %s\n' "turn $2" "$1" "$seconds" "$cpu" $((peak / 1000)) "$(cut -d' ' -f1 /proc/loadavg)"
	[ "$2" = 0 ] || echo "$1|$2|$seconds|$peak|${against-}|$cpu" >>"$work/times"
}

# summary prints what was measured, method by method.
summary() {
	[ -e "$work/times" ] || return 0
	printf '\n%-34s %8s %7s %9s %6s   %s\n' METHOD SECONDS CPU PEAK TURNS 'IN THE SAME TURN'
	awk -F'|' '
		function median(list, n,    i, j, t) {
			for (i = 2; i <= n; i++)
				for (j = i; j > 1 && list[j - 1] > list[j]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
			return (list[int((n + 1) / 2)] + list[int(n / 2) + 1]) / 2
		}
		!($1 in count) { order[++methods] = $1 }
		{
			n = ++count[$1]; time[$1, n] = $3; at[$1, $2] = $3; cpu[$1, n] = $6; cpuAt[$1, $2] = $6; turn[$1, n] = $2; other[$1] = $5
			if ($4 > peak[$1]) peak[$1] = $4
		}
		END {
			for (m = 1; m <= methods; m++) {
				name = order[m]; with = other[name]; more = 0
				for (i = 1; i <= count[name]; i++) {
					list[i] = time[name, i]; busy[i] = cpu[name, i]
					base = at[with, turn[name, i]]
					if (base > 0) { ratio[++more] = list[i] / base; plus[more] = list[i] - base }
					if (base > 0 && cpuAt[with, turn[name, i]] > 0) work[more] = cpu[name, i] / cpuAt[with, turn[name, i]]
				}
				line = sprintf("%-34s %8.2f %7.2f %6d MB %6d", name, median(list, count[name]), median(busy, count[name]), peak[name] / 1000, count[name])
				if (more) line = line sprintf("   %.2f times %s, %+.2f s, %.2f times its CPU", median(ratio, more), with, median(plus, more), median(work, more))
				print line
			}
		}' "$work/times"
	echo "all of it: $(($(date +%s) - begun)) s" >&2
	rm "$work/times"
}

# tenLayers makes the layout "$work/ten" of what is in that of one layer.
tenLayers() {
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
	(cd "$here" && go build -o "$work/floor" ./floor)
	largest=$(find "$layout/blobs/sha256" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
	tenLayers
	unpack="umoci unpack"
	[ "$(id -u)" = 0 ] || unpack="$unpack --rootless"
	methods="lumina lumina,trial umoci+mkfs.erofs umoci+mke2fs"
	if type virt-make-fs >/dev/null 2>&1; then methods="$methods umoci+virt-make-fs"; fi
	turn=0
	while [ "$turn" -le "$turns" ]; do
		against=
		once floor "'$work/floor' '$largest' root"
		for n in 1 10; do
			image=$layout:latest
			[ $n = 1 ] || image=$work/ten:latest
			for method in $methods; do
				against="lumina,layers=$n"
				case $method in
				lumina)
					against=
					[ $n = 10 ] || against=floor
					do="rm -rf '$LUMINA_HOME/images' && '$lumina' images create compare --from 'oci:$image' --no-verify"
					;;
				lumina,trial) do="rm -rf '$LUMINA_HOME/images' && '$lumina' images create compare --from 'oci:$image'" ;;
				umoci+mke2fs) do="$unpack --image '$image' bundle && mke2fs -q -t ext4 -d bundle/rootfs root.ext4 1G" ;;
				umoci+mkfs.erofs) do="$unpack --image '$image' bundle && mkfs.erofs --quiet root.erofs bundle/rootfs" ;;
				umoci+virt-make-fs) do="$unpack --image '$image' bundle && virt-make-fs --type=ext4 --size=+256M bundle/rootfs root.ext4" ;;
				esac
				once "$method,layers=$n" "$do"
			done
		done
		turn=$((turn + 1))
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
	$lumina images create base --from "oci:$layout:latest" --no-verify >/dev/null
	ln -s "$layout" "$work/base" # it is named after its folder
	(cd "$work" && eval "$buildah pull -q oci:base:latest" >/dev/null)
	bud="$buildah bud --isolation chroot --layers -t compare"
	ours="'$lumina' images create dockerfile --replace --no-verify --progress plain -f '$work/context/Dockerfile'"
	turn=1
	while [ "$turn" -le "$cold" ]; do
		against=
		once buildah,cold "$bud --no-cache '$work/context'"
		against=buildah,cold
		once lumina,cold "$ours --no-cache '$work/context'"
		# The same commands, in the VM and on this host: what emulation costs.
		awk '/^#[0-9]+ \[.*RUN /{ name[$1] = ($5 == "apt-get" || $4 == "apt-get") ? "apt-get" : "pip" }
			/DONE/ { sub("s", "", $3); if (name[$1]) print name[$1], $3 }' "$work/log" >"$work/steps"
		(cd "$work" && eval "$buildah from --name native oci:base:latest" >/dev/null)
		for step in apt-get pip; do
			command=$(sed -n "s/^RUN \($step .*\)/\1/p" "$work/context/Dockerfile")
			against=
			once "RUN $step, in a chroot" "$buildah run --isolation chroot -v '$work/context/hello:/hello' native -- sh -c '$command'"
			against="RUN $step, in a chroot"
			sed -n "s/^$step //p" "$work/steps" | sed 's/$/ 0 0 0/' | keep "RUN $step, in the VM" "$turn"
		done
		eval "$buildah rm native" >/dev/null
		turn=$((turn + 1))
	done
	turn=1
	while [ "$turn" -le "$turns" ]; do
		echo "changed $turn" >"$work/context/tree/50/50"
		against=
		once buildah,rebuild "$bud '$work/context'"
		against=buildah,rebuild
		once lumina,rebuild "$ours '$work/context'"
		turn=$((turn + 1))
	done
}

for what in $which; do "$what"; done
