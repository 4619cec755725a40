//! How much is taken out of one image at the most, and how much was.
//!
//! What holds here: no number of an image decides how long an extraction goes on or how much it writes.

use crate::exit::{Code, Failure};
use crate::text;

/// How much is taken at the most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Names in directories.
    pub(crate) entries: u64,
    /// Directories in one another.
    pub(crate) depth: usize,
    /// Bytes of data.
    pub(crate) bytes: u64,
    /// Bytes that files are longer than their data.
    pub(crate) holes: u64,
}

/// How much was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// Names in directories.
    pub(crate) entries: u64,
    /// Bytes of data.
    pub(crate) bytes: u64,
    /// Bytes that files are longer than their data.
    pub(crate) holes: u64,
}

impl Taken {
    /// Counts a name. Over the limit everything ends.
    pub(crate) fn entry(&mut self, limits: &Limits) -> Result<(), Failure> {
        self.entries += 1;
        if self.entries <= limits.entries {
            return Ok(());
        }
        let reason = format!("has more than {} entries, and no more are extracted; see --max-entries", limits.entries);
        Err(Failure::new(Code::Unreadable, reason))
    }

    /// Counts bytes of data. Over the limit everything ends.
    pub(crate) fn data(&mut self, bytes: u64, limits: &Limits) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= limits.bytes {
            return Ok(());
        }
        let most = text::size(limits.bytes);
        let reason = format!("has more than {most} of data in its files, and no more is extracted; see --max-bytes");
        Err(Failure::new(Code::Unreadable, reason))
    }

    /// Counts what a file is longer than its data. Over the limit it is this file that is left out.
    pub(crate) fn hole(&mut self, bytes: u64, limits: &Limits) -> Result<(), Failure> {
        let holes = self.holes.saturating_add(bytes);
        if holes <= limits.holes {
            self.holes = holes;
            return Ok(());
        }
        let (long, most) = (text::size(bytes), text::size(limits.holes));
        let reason =
            format!("is {long} longer than its data, and more than {most} of holes are not made; see --max-holes");
        Err(Failure::new(Code::Unreadable, reason).local())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_kept_to_the_last_byte() {
        let limits = Limits { entries: 2, depth: 1, bytes: 10, holes: 100 };
        let mut taken = Taken::default();
        assert!(taken.entry(&limits).is_ok() && taken.entry(&limits).is_ok() && taken.entry(&limits).is_err());
        assert!(taken.data(10, &limits).is_ok() && taken.data(1, &limits).is_err());
        assert!(taken.hole(60, &limits).is_ok());
        // What does not fit leaves room for what does.
        assert!(taken.hole(u64::MAX, &limits).is_err_and(|failure| failure.is_local()));
        assert!(taken.hole(40, &limits).is_ok() && taken.hole(1, &limits).is_err());
    }
}
