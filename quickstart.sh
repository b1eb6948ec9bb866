#!/bin/sh
# quickstart.sh: a Debian root file system becomes an OCI image, the OCI image
# a Lumina image, and a command runs in a VM of it. Prints the command's JSON.
set -eu
cache=${LUMINA_CACHE:-$HOME/.cache/lumina}/quickstart
mkdir -p "$cache"
if [ ! -e "$cache/debian/index.json" ]; then
	work=$(mktemp -d "$cache/work.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	echo "quickstart: making a Debian 12 OCI image" >&2
	mmdebstrap --quiet --variant=minbase bookworm "$work/root.tar"
	umoci init --layout "$work/debian"
	umoci new --image "$work/debian:latest"
	umoci raw add-layer --image "$work/debian:latest" "$work/root.tar"
	umoci config --image "$work/debian:latest" --config.cmd /bin/bash
	mv "$work/debian" "$cache/debian"
fi
bin/lumina images create debian --replace --from "oci:$cache/debian:latest" >/dev/null
LUMINA_FORMAT=json bin/lumina run --image debian 'cat /etc/os-release; id; df -h /; nproc; uname -a'
