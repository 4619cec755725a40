//! The kernel beneath: its release, and what that says about its FUSE client.
//!
//! What holds here: a release that is not known to be good counts as bad. A distribution that carries a fix in an older
//! release loses speed by that and nothing else.

/// Releases in which a fault is mended, as (version, patch level, release): all of the later series too.
type Mended = &'static [(u32, u32, u32)];

/// CVE-2025-68821, "fuse: fix readahead reclaim deadlock": the inode of a file that was opened without asking the server
/// is not held during read-ahead. In mainline since 6.19; the stable series got it in January 2026.
const OPENED_WITHOUT_ASKING: Mended = &[(6, 1, 162), (6, 6, 121), (6, 12, 65), (6, 18, 4), (6, 19, 0)];

/// Whether a file system may tell this kernel to open files and directories without asking.
pub(crate) fn may_open_without_asking() -> bool {
    is_mended(OPENED_WITHOUT_ASKING, rustix::system::uname().release().to_str().unwrap_or_default())
}

fn is_mended(mended: Mended, release: &str) -> bool {
    let Some(own) = parse(release) else { return false };
    let same_series = mended.iter().find(|(version, level, _)| (*version, *level) == (own.0, own.1));
    let newest = mended.last().is_some_and(|newest| own >= *newest);
    newest || same_series.is_some_and(|first| own >= *first)
}

/// The three numbers that a release begins with: `6.12.65+deb13-amd64`, `6.19-rc3` (a candidate is no release).
fn parse(release: &str) -> Option<(u32, u32, u32)> {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    let (numbers, rest) = release.split_at(end);
    if rest.starts_with("-rc") {
        return None;
    }
    let mut numbers = numbers.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_good_from_the_first_of_its_series_on() {
        for good in ["6.1.162", "6.1.170-1-amd64", "6.12.65+deb13", "6.18.44", "6.19.0", "6.19", "7.1.2-generic"] {
            assert!(is_mended(OPENED_WITHOUT_ASKING, good), "{good}");
        }
        for bad in
            ["6.1.161", "6.12.64", "6.17.13", "6.8.0-90-generic", "5.15.300", "6.19-rc1", "", "x", "6", "7.0-rc2"]
        {
            assert!(!is_mended(OPENED_WITHOUT_ASKING, bad), "{bad}");
        }
    }
}
