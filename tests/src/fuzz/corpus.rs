//! The committed corpus: one file a target, in which each input stands behind its length in two bytes. Many inputs that
//! look alike make one file that is small when it is packed, where a file for each would be thousands.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// Where the committed corpus lies.
pub fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// Where inputs lie that once were wrong, a folder a target and a file each.
pub fn regressions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions")
}

/// The inputs of a target in one file; none if there is no such file.
///
/// # Errors
/// The file is there and cannot be read, or is none.
pub fn read(file: &Path) -> Result<Vec<Vec<u8>>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let bytes = fs::read(file)?;
    let (mut rest, mut inputs) = (&bytes[..], Vec::new());
    while let Some((length, more)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length));
        let (input, behind) = more.split_at_checked(length).ok_or_else(|| format!("{}: cut short", file.display()))?;
        inputs.push(input.to_vec());
        rest = behind;
    }
    if rest.is_empty() { Ok(inputs) } else { Err(format!("{}: a byte is left over", file.display()).into()) }
}

/// Writes inputs into one file, the shortest first; those that are too long are left out.
///
/// # Errors
/// The file cannot be written.
pub fn write(file: &Path, mut inputs: Vec<Vec<u8>>) -> Result {
    inputs.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    inputs.dedup();
    let mut bytes = Vec::new();
    for input in inputs {
        if let Ok(length) = u16::try_from(input.len()) {
            bytes.extend(length.to_le_bytes());
            bytes.extend(input);
        }
    }
    Ok(fs::write(file, bytes)?)
}

/// The files of a folder; none if there is no such folder.
///
/// # Errors
/// One of them cannot be read.
pub fn folder(place: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    if !place.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = fs::read_dir(place)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    files.into_iter().map(|file| Ok((file.clone(), fs::read(&file)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_not() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("target");
        assert_eq!(read(&file).unwrap(), Vec::<Vec<u8>>::new());
        let inputs = vec![vec![3; 300], vec![], vec![1, 2]];
        write(&file, inputs).unwrap();
        assert_eq!(read(&file).unwrap(), [vec![], vec![1, 2], vec![3; 300]]);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert!(read(&file).is_err());
    }
}
