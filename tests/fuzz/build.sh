#!/bin/bash -eu
# Builds the targets as OSS-Fuzz and ClusterFuzzLite want them: programs, images, first inputs and dictionaries in $OUT.
# Needs nightly Rust, cargo-fuzz, a C++ compiler, e2fsprogs of 1.46 or newer, and zip.
cd "$(dirname "$0")/../.."
: "${OUT:?the folder to build into}"

# What is made besides the targets is made without what the targets are made with.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
env -u RUSTFLAGS -u CFLAGS -u CXXFLAGS cargo run --profile checks --package lazaret-tests --bin fuzz -- prepare "$work"

# Where the flags of a build for coverage are for, cargo-fuzz is not asked: it has flags of its own.
if test "${SANITIZER:=address}" = coverage; then
    cargo build --manifest-path tests/fuzz/Cargo.toml --bins --target-dir "$work/build"
    programs=("$work"/build/*/debug)
else
    RUSTC_WRAPPER=$PWD/tests/fuzz/instrument cargo fuzz build --fuzz-dir tests/fuzz --release --strip-dead-code \
        --sanitizer "$SANITIZER" --target-dir "$work/build"
    programs=("$work"/build/*/release)
fi

mkdir -p "$OUT/images"
cp "$work"/images/* "$OUT/images/"
for seeds in "$work"/seeds/*; do
    target=${seeds##*/}
    cp "${programs[0]}/$target" "$OUT/"
    (cd "$seeds" && zip -q -r "$OUT/${target}_seed_corpus.zip" .)
    cp "$work/dictionary" "$OUT/$target.dict"
    printf '[libfuzzer]\nmax_len = 40000\ntimeout = 60\nreduce_inputs = 0\n' >"$OUT/$target.options"
done
