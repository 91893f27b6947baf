#!/usr/bin/env bash
# Checks on a card, in three parts (see docs/benchmarks.md, "On a card"):
#
#   benchmarks/gpu/check.sh prepare     # where a registry is: packages that the other machine lacks, into .bench/card
#   benchmarks/gpu/check.sh run         # where the card is: all checks; figures in $OUT/check.json, else check.json
#   benchmarks/gpu/check.sh rehearse    # anywhere: the same checks on the CPU, with tiny shapes
#
# What follows the word is handed on to check.py. PYTHON names another Python.
set -euo pipefail
cd "$(dirname "$0")/../.."

site=.bench/card
max_mib=48 # carried beside the repository itself, 64 MiB together
card_python=3.12
card_cuda=130

prepare() {
  rm -rf "$site"
  # The first of these platforms that a package has wheels for.
  local platforms=()
  for platform in manylinux_2_28_x86_64 manylinux_2_24_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64; do
    platforms+=(--platform "$platform")
  done
  "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
    --only-binary=:all: --python-version "$card_python" --implementation cp "${platforms[@]}" \
    --constraint constraints.txt --constraint benchmarks/peers/requirements.txt \
    --target "$site" --requirement benchmarks/gpu/carried.txt
  find "$site/bitsandbytes" -name "libbitsandbytes_*.so" ! -name "*_cpu.so" ! -name "*_cuda$card_cuda.so" -delete
  local mib
  mib=$(du --summarize --block-size=1M "$site" | cut -f1)
  echo "$site takes $mib MiB, and $max_mib MiB may be carried"
  ((mib <= max_mib))
}

check() {
  local python=${PYTHON:-python3}
  # A Python that has the product's packages needs none of those for another one.
  "$python" -c "import pydantic_settings" 2>/dev/null || export PYTHONPATH="$PWD/$site${PYTHONPATH:+:$PYTHONPATH}"
  exec "$python" benchmarks/gpu/check.py --output "${OUT:-.}/check.json" "$@"
}

case "${1:-}" in
  prepare) prepare ;;
  run) check "${@:2}" ;;
  rehearse) check --rehearse "${@:2}" ;;
  *)
    echo "usage: $0 prepare | run | rehearse" >&2
    exit 2
    ;;
esac
