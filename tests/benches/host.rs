//! The machine that is measured on, and its caches.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use lazaret_tests::Result;
use serde_json::{Value, json};

/// What the figures were measured on.
pub(crate) fn describe() -> Result<Value> {
    let system = rustix::system::uname();
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(json!({
        "kernel": system.release().to_string_lossy(),
        "architecture": system.machine().to_string_lossy(),
        "processor": model,
        "processors": std::thread::available_parallelism()?.get(),
        "memory_mebibytes": memory.map(|kibibytes| kibibytes >> 10),
        "load": fs::read_to_string("/proc/loadavg")?.split_whitespace().next(),
    }))
}

/// Reads a file once, so that it lies in the page cache.
pub(crate) fn read_into_cache(path: &Path) -> Result {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 4 << 20]);
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Drops the page cache, dentries and inodes of the whole machine.
pub(crate) fn drop_caches() -> Result {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").map_err(|error| format!("dropping caches: {error}").into())
}
