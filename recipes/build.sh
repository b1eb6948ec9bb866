#!/bin/sh
# build.sh [NAME…]: make the image of each recipe, run its tests, and print how
# long that took and how large it is. The default image, which a first run fetches,
# must stay small. kvm-host has a kernel of its own, which takes long to build: it
# is made if it is named, and by make test-kvm.
set -eu
cd "$(dirname "$0")/.."
names=$*
[ -n "$names" ] || for f in recipes/*.yaml; do [ "$f" = recipes/kvm-host.yaml ] || names="$names $(basename "$f" .yaml)"; done
printf '%-10s %8s %10s %12s\n' RECIPE SECONDS ROOT COMPRESSED
for name in $names; do
	begin=$(date +%s)
	bin/lumina images create "$name" --replace --recipe "recipes/$name.yaml" >/dev/null
	end=$(date +%s)
	dir=${LUMINA_HOME:-$HOME/.lumina}/images/$name
	root=$(($(stat -c %s "$dir/rootfs.erofs") / 1000000))
	all=$(($(tar -C "$dir" -c . | zstd -q -10 -T0 | wc -c) / 1000000))
	printf '%-10s %8d %7d MB %9d MB\n' "$name" $((end - begin)) "$root" "$all"
	[ "$name" = default ] || continue
	if [ "$all" -gt 32 ]; then
		echo "recipes: the default image has $all MB compressed, want at most 32" >&2
		exit 1
	fi
	# The product page's line, as it stands.
	bin/lumina images create X --replace --from default --run "apt-get update && apt-get install -y python3" >/dev/null
	[ "$(LUMINA_FORMAT=text bin/lumina run --image X --network none 'python3 -c "print(6*7)"')" = 42 ] || { echo "recipes: python3 in the default image does not run" >&2; exit 1; }
	bin/lumina images remove X >/dev/null
done
