//! The target `xattr_block`: see `tests/src/fuzz/target.rs`.
#![cfg_attr(feature = "libfuzzer", no_main)]

lazaret_fuzz::target!(XATTR_BLOCK);
