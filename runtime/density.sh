#!/bin/bash
# density.sh [N] [IMAGE] [MEMORY]: N sessions (100) of one image (debian) at once, with
# so much memory each (lumina's default): started four at a time, one exec each,
# stopped. Prints how long that took, and what one costs:
# memory (PSS: what is shared is divided by those who share it) of its QEMU and its
# supervisor, descriptors, threads. It stops before the host's memory is gone.
set -euo pipefail
n=${1:-100} image=${2:-debian} size=${3:+--memory=$3} at_once=4 reserve=2048 # MiB
lumina=${LUMINA:-$(cd "$(dirname "$0")/.." && pwd)/bin/lumina}
export LUMINA_FORMAT=json
work=$(mktemp -d)
end() {
	[[ ! -s $work/sids ]] || xargs -r -n1 -P$at_once "$lumina" session stop --force <"$work/sids" >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM
now() { date +%s%N; }
ms() { echo $((($(now) - $1) / 1000000)); }
available() { awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo; }

# supervisors: those of this program, whoever's sessions they have. Their children
# are the QEMUs.
supervisors() { pgrep -f "^$(realpath "$lumina") __supervise" || true; }
# The first run has a template made beside it.
for ((i = 0; ; i++)); do
	trace=$(LUMINA_BOOT_TRACE=1 "$lumina" run ${size:+"$size"} --image "$image" true 2>&1 >/dev/null)
	[[ $trace != *'boot: from a template'* ]] || break
	((i < 30)) || { echo "density: there is no template: ${trace%%$'\n'*}" >&2; exit 1; }
	sleep 2
done
others=" $(supervisors | xargs) " memory=$(available)

from=$(now)
start() {
	(($(available) > reserve)) || { echo "density: less than $reserve MiB of memory are left" >&2; exit 0; }
	"$lumina" session start ${size:+"$size"} --image "$image" | sed 's/.*"sid":"\([^"]*\)".*/\1/' >>"$work/sids"
}
export -f start available
export lumina image size work reserve
seq "$n" | xargs -P$at_once -I{} bash -c start
up=$(wc -l <"$work/sids") started=$(ms "$from")

from=$(now)
# shellcheck disable=SC2016 # the inner shell's
xargs -n1 -P$at_once sh -c '"$lumina" exec "$0" true >/dev/null && echo' <"$work/sids" >"$work/done"
executed=$(ms "$from")
sleep 5 # idle

# sum PID…: PSS in KiB, descriptors, threads of processes.
sum() {
	local pid
	for pid; do
		echo "$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup") $(find "/proc/$pid/fd" -mindepth 1 | wc -l) $(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)"
	done | awk '{ a += $1; b += $2; c += $3 } END { if (NR) printf "PSS %.1f MiB, %.0f descriptors, %.0f threads", a / NR / 1024, b / NR, c / NR }'
}
mine=() vms=()
for pid in $(supervisors); do
	[[ $others == *" $pid "* ]] && continue
	mine+=("$pid")
	while read -r vm; do vms+=("$vm"); done < <(pgrep -P "$pid")
done
# ticks: of a CPU that the VMs have used.
ticks() { for pid in "${vms[@]}"; do cat "/proc/$pid/stat"; done | sed 's/.*) //' | awk '{ t += $12 + $13 } END { print t }'; }
used=$(ticks)
sleep 10
idle=$((($(ticks) - used) * 100 / 10 / $(getconf CLK_TCK)))
echo "$up of $n sessions up in $started ms ($((started / (up > 0 ? up : 1))) ms each), $(wc -l <"$work/done") execs in $executed ms"
echo "a QEMU: $(sum "${vms[@]}")"
echo "a supervisor: $(sum "${mine[@]}")"
echo "together: $((memory - $(available))) MiB less are available, all of them idle take $idle % of a CPU"
from=$(now)
xargs -n1 -P$at_once "$lumina" session stop <"$work/sids" >/dev/null
: >"$work/sids"
stopped=$(ms "$from")
for ((i = 0; i < 100; i++)); do # a supervisor answers before it ends, and a busy host takes its time
	left=0
	for pid in "${mine[@]}" "${vms[@]}"; do [[ ! -e /proc/$pid ]] || left=$((left + 1)); done
	((left)) || break
	sleep 0.1
done
echo "stopped in $stopped ms, $left processes are left"
