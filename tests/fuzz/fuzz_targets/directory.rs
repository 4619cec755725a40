//! The target `directory`: see `tests/src/fuzz/target.rs`.
#![cfg_attr(feature = "libfuzzer", no_main)]

lazaret_fuzz::target!(DIRECTORY);
