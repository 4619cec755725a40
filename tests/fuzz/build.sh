#!/bin/bash -eu
# Builds the targets as OSS-Fuzz and ClusterFuzzLite want them: programs, images, first inputs and dictionaries in $OUT.
# Needs nightly Rust, cargo-fuzz, a C++ compiler, e2fsprogs of 1.46 or newer, and zip.
cd "$(dirname "$0")/../.."
: "${OUT:?the folder to build into}"

# What is made besides the targets is made without what the targets are made with.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
env -u RUSTFLAGS -u CFLAGS -u CXXFLAGS cargo run --profile checks --package lazaret-tests --bin fuzz -- prepare "$work"

sanitizer=${SANITIZER:-address}
# Coverage is in the flags that the builder has set.
test "$sanitizer" != coverage || sanitizer=none
cargo fuzz build --fuzz-dir tests/fuzz --release --sanitizer "$sanitizer" --target-dir "$work/build"

mkdir -p "$OUT/images"
cp "$work"/images/* "$OUT/images/"
for seeds in "$work"/seeds/*; do
    target=${seeds##*/}
    cp "$work"/build/*/release/"$target" "$OUT/"
    (cd "$seeds" && zip -q -r "$OUT/${target}_seed_corpus.zip" .)
    cp "$work/dictionary" "$OUT/$target.dict"
    printf '[libfuzzer]\nmax_len = 40000\ntimeout = 60\n' >"$OUT/$target.options"
done
