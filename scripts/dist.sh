#!/usr/bin/env bash
# Packs what a machine needs to run weir: target/dist/weir-VERSION-ARCH-linux.tar.gz, and its checksum.
set -euo pipefail

usage() {
    cat <<'USAGE'
Usage: scripts/dist.sh [WEIR]

Packs WEIR (default target/release/weir, which `make dist` builds) with man pages, completions, an example configuration, the systemd
unit and the licences of everything that is in it. The same commit gives the same archive.
USAGE
}

case "${1:-}" in -h | --help) usage && exit ;; esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
weir=${1:-$root/target/release/weir}
[ -x "$weir" ] || { printf 'dist: there is no %s; run make dist\n' "$weir" >&2 && exit 1; }
version=$("$weir" --version | awk '{print $2}')
name=weir-$version-$(uname -m)-linux
out=$root/target/dist
tree=$out/$name
rm -rf "$tree"
mkdir -p "$tree/bin" "$tree/share/man/man1" "$tree/share/doc/weir" "$tree/etc/weir" "$tree/lib/systemd/system"
mkdir -p "$tree/share/bash-completion/completions" "$tree/share/zsh/site-functions" "$tree/share/fish/vendor_completions.d"

install -m 0755 "$weir" "$tree/bin/weir"
strip --strip-unneeded "$tree/bin/weir"
"$weir" man "$tree/share/man/man1"
"$weir" completions bash >"$tree/share/bash-completion/completions/weir"
"$weir" completions zsh >"$tree/share/zsh/site-functions/_weir"
"$weir" completions fish >"$tree/share/fish/vendor_completions.d/weir.fish"
"$weir" --quiet --config "$tree/etc/weir/weir.example.toml" init
install -m 0644 "$root/packaging/weir@.service" "$tree/lib/systemd/system/"
cp -r "$root/docs" "$root/README.md" "$root/CHANGELOG.md" "$root/LICENSE" "$tree/share/doc/weir/"
"$root/scripts/licences.py" >"$tree/share/doc/weir/THIRD-PARTY.md"

moment=$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)
tar --sort=name --mtime="@$moment" --owner=0 --group=0 --numeric-owner --mode='u+rwX,go+rX,go-w' -C "$out" -c "$name" | gzip -n -9 >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
rm -rf "$tree"
printf '%s\n' "$out/$name.tar.gz"
