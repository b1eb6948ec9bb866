#!/bin/sh
# formula.sh TAG DIR: print the Homebrew formula of a release whose files are in DIR:
# lumina-darwin-arm64, lumina-linux-amd64, lumina-linux-arm64, lumina-manual.tar.gz.
# LUMINA_FORMULA_URL is where Homebrew gets them, instead of the release: a check
# before there is one gives a file: URL.
set -eu
[ $# = 2 ] || { echo "usage: formula.sh TAG DIR" >&2; exit 2; }
tag=$1 dir=$2
repository=https://github.com/abdul-abdi/lumina
url=${LUMINA_FORMULA_URL:-$repository/releases/download/$tag}

digest() {
	[ -f "$dir/$1" ] || { echo "formula.sh: $dir has no $1" >&2; exit 1; }
	if command -v sha256sum >/dev/null; then sha256sum "$dir/$1"; else shasum -a 256 "$dir/$1"; fi | cut -d ' ' -f 1
}

darwin=$(digest lumina-darwin-arm64)
amd64=$(digest lumina-linux-amd64)
arm64=$(digest lumina-linux-arm64)
manual=$(digest lumina-manual.tar.gz)
cat <<EOF
class Lumina < Formula
  desc "Run commands in virtual machines, as subprocess.run() does in processes"
  homepage "$repository"
  version "${tag#v}"
  license "MIT"

  on_macos do
    depends_on arch: :arm64
    depends_on macos: :sonoma

    url "$url/lumina-darwin-arm64"
    sha256 "$darwin"
  end

  on_linux do
    depends_on "qemu"

    on_intel do
      url "$url/lumina-linux-amd64"
      sha256 "$amd64"
    end
    on_arm do
      url "$url/lumina-linux-arm64"
      sha256 "$arm64"
    end
  end

  resource "manual" do
    url "$url/lumina-manual.tar.gz"
    sha256 "$manual"
  end

  def install
    bin.install Dir["lumina-*"].first => "lumina"
    resource("manual").stage do
      man1.install Dir["man1/*.1"]
      bash_completion.install "completions/lumina"
      zsh_completion.install "completions/_lumina"
      fish_completion.install "completions/lumina.fish"
    end
  end

  test do
    assert_match "lumina #{version}", shell_output("LUMINA_FORMAT=text #{bin}/lumina version").sub("lumina v", "lumina ")
  end
end
EOF
