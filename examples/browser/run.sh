#!/bin/sh
# Compiles the example model for browsers and serves its page on this machine: ./run.sh [PORT]
set -eu
cd "$(dirname "$0")"
out="${OUT:-austen}"
bitnetc compile ../austen/model --name austen --target wasm32-simd128 --web -o "$out"
exec python3 -m http.server -b 127.0.0.1 -d "$out/web" "${1:-8000}"
