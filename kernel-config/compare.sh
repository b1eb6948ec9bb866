#!/usr/bin/env bash
# compare.sh OURS CONFIG…: print every option that a CONFIG turns on, that OURS has not, and for which left-out gives no
# reason; exit 1 if there is one. OURS is the configuration of a kernel of ours (in a guest: /proc/config.gz, unpacked);
# a CONFIG is another kernel's, such as that of "make defconfig", or Debian's (package linux-config-6.12).
set -euo pipefail
(($# >= 2)) || { echo "usage: $0 OURS CONFIG…" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
on() { sed -n 's/^CONFIG_\([A-Za-z0-9_]*\)=[ym]$/\1/p' "$@" | sort -u; }
missing=0
read -rd "" -a patterns < <(grep -v "^#" "$here/left-out") || true # it ends at the end of the file
while read -r option; do
	for pattern in "${patterns[@]}"; do
		# shellcheck disable=SC2053 # it is a pattern
		[[ $option != $pattern ]] || continue 2
	done
	echo "$option"
	missing=1
done < <(comm -13 <(on "$1") <(on "${@:2}"))
exit $missing
