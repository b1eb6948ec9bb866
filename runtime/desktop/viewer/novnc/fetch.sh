#!/bin/sh
# fetch.sh: get noVNC, in the version and with the digest of package-lock.json,
# and put what the viewer embeds into ../out/novnc: its modules and its licences.
set -eu
cd "$(dirname "$0")"

if ! command -v npm >/dev/null; then
	echo "novnc: npm is missing: run ./setup.sh, or install Node.js; only 'lumina desktop open' needs it" >&2
	exit 1
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp package.json package-lock.json .npmrc "$tmp"
(cd "$tmp" && npm ci --no-audit --no-fund --loglevel=error >&2)
from=$tmp/node_modules/@novnc/novnc
rm -rf ../out/novnc
mkdir "$tmp/novnc"
cp -R "$from/core" "$from/vendor" "$from/AUTHORS" "$from/LICENSE.txt" "$from"/docs/LICENSE.MPL-2.0 "$tmp/novnc"
mv "$tmp/novnc" ../out/novnc
