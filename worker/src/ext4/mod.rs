//! An ext4 file system.
