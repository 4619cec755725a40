//! Makes programs of the targets in `tests/src/fuzz`: one macro, for libFuzzer with its custom mutator, or for AFL++.
//!
//! What always holds here: nothing of what a target does stands here, so that the checks, which need no nightly, run
//! the same code.

pub use lazaret_tests::fuzz::target::{self, Target};
pub use lazaret_tests::heap::Counted;

#[cfg(feature = "afl")]
pub use afl;
#[cfg(feature = "libfuzzer")]
pub use libfuzzer_sys;

/// What libFuzzer calls instead of its own mutator: in one of eight cases its own, which knows what the code compares
/// with, and ours otherwise. Returns how many bytes of `data` are the input.
pub fn mutate(
    target: &Target,
    data: &mut [u8],
    size: usize,
    most: usize,
    seed: u32,
    own: impl FnOnce(&mut [u8], usize, usize) -> usize,
) -> usize {
    if seed % 8 == 0 {
        let size = own(data, size, most);
        target.spare(&mut data[..size]);
        return size;
    }
    let made = target.mutate(&data[..size], most, seed.into());
    let size = made.len().min(most);
    data[..size].copy_from_slice(&made[..size]);
    size
}

/// A program of this target.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! target {
    ($target:ident) => {
        #[global_allocator]
        static HEAP: $crate::Counted = $crate::Counted;

        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::target::$target.run(data));

        $crate::libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::mutate(&$crate::target::$target, data, size, max_size, seed, $crate::libfuzzer_sys::fuzzer_mutate)
        });
    };
}

/// A program of this target.
#[cfg(all(feature = "afl", not(feature = "libfuzzer")))]
#[macro_export]
macro_rules! target {
    ($target:ident) => {
        #[global_allocator]
        static HEAP: $crate::Counted = $crate::Counted;

        fn main() {
            // Images are made before the fork server starts, once for all inputs.
            $crate::target::$target.seeds();
            $crate::afl::fuzz!(|data: &[u8]| $crate::target::$target.run(data));
        }
    };
}
