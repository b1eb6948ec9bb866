#!/bin/sh
# build.sh: make the app's page in ./out: its TypeScript, with noVNC and xterm.js in the
# versions and with the digests of package-lock.json. With --check it is only looked at.
set -eu
cd "$(dirname "$0")"

if ! command -v npm >/dev/null; then
	echo "app: npm is missing: run ./setup.sh, or install Node.js; only 'lumina app' and 'lumina desktop open' need it" >&2
	exit 1
fi
if ! cmp -s package-lock.json node_modules/.installed; then
	npm ci --no-audit --no-fund --loglevel=error >&2
	cp package-lock.json node_modules/.installed
fi
if [ "${1:-}" = --check ]; then
	exec node_modules/.bin/tsc --noEmit -p .
fi
rm -rf out/*.js out/*.css out/licences
# esbuild's program is in a package of its own: its installation runs no script.
node_modules/.bin/esbuild src/main.ts src/player.ts --bundle --splitting --format=esm --target=es2022 --minify --legal-comments=none \
	--outdir=out --chunk-names='[name]-[hash]' --log-level=warning
# The page has its style in it, and names all that its script imports: what it shows
# first waits for one answer, not for three.
# shellcheck disable=SC2016 # it is JavaScript
node -e '
	const fs = require("fs"), out = (name) => fs.readFileSync("out/" + name, "utf8");
	const preloads = [...out("main.js").matchAll(/from"\.\/([^"]+)"/g)].map((m) => `<link rel="modulepreload" href="assets/${m[1]}">\n`);
	fs.writeFileSync("out/index.html", fs.readFileSync("index.html", "utf8").replace("{{style}}", () => out("main.css").trim()).replace("{{preloads}}", () => preloads.join("").trim()));
'
rm out/main.css
# What release/notices prints.
for package in @novnc/novnc @xterm/xterm @xterm/addon-fit @xterm/addon-web-links; do
	mkdir -p "out/licences/$package"
	cp "node_modules/$package"/LICENSE* "out/licences/$package"
done
cp node_modules/@novnc/novnc/AUTHORS node_modules/@novnc/novnc/docs/LICENSE.MPL-2.0 out/licences/@novnc/novnc
mkdir -p out/licences/@novnc/novnc/vendor/pako
cp node_modules/@novnc/novnc/vendor/pako/LICENSE out/licences/@novnc/novnc/vendor/pako
