#!/usr/bin/env bash
# Builds the example model as a Buildroot package, with Buildroot's own make.
#
#     tests/buildroot.sh BUILDROOT WORK [FRAGMENT ...]
#
# BUILDROOT is an unpacked release, WORK a folder for what is made. Fragments are added to the
# configuration: an external toolchain, say; without one Buildroot builds a toolchain first, which
# takes an hour and downloads.
set -euo pipefail
test $# -ge 2 || { sed -n 2,8p "$0"; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
buildroot=$(realpath "$1") work=$(realpath -m "$2")
shift 2
mkdir -p "$work"
"${BITNETC:-bitnetc}" compile "$root/examples/austen/model" --name austen --target armv8-neon -o "$work/austen"
"${BITNETC:-bitnetc}" package "$work/austen" --buildroot -o "$work/packages"
tree=$work/packages/buildroot-austen

# apt-get install python3-magic python3-flake8
(cd "$tree" && /usr/bin/python3 "$buildroot/utils/check-package" -b Config.in external.desc external.mk \
    package/austen/Config.in package/austen/austen.mk package/austen/austen.hash)

{ printf 'BR2_aarch64=y\nBR2_cortex_a72=y\nBR2_INIT_NONE=y\nBR2_PACKAGE_AUSTEN=y\n'
  printf 'BR2_DOWNLOAD_FORCE_CHECK_HASHES=y\n'; cat /dev/null "$@"; } > "$work/defconfig"
make -C "$buildroot" O="$work/output" BR2_EXTERNAL="$tree" BR2_DEFCONFIG="$work/defconfig" defconfig
make -C "$work/output" austen austen-legal-info

prompt=(-p "It is a truth" -n 12 --temp 0 -q)
ours=$(qemu-aarch64-static -cpu cortex-a72 "$work/austen/bin/austen" "${prompt[@]}")
theirs=$(qemu-aarch64-static -cpu cortex-a72 -L "$work/output/target" \
    "$work/output/target/usr/bin/austen" "${prompt[@]}")
test "$ours" = "$theirs"
echo "Buildroot's program writes the same text: $theirs"
