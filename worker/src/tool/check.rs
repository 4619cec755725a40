//! A check of the whole file system, a slice of it with each question.

use crate::error::Result;
use crate::ext4::Filesystem;
use crate::ext4::check::Check;
use lazaret_policy::message::Answer;

/// Goes on with the check, or begins it.
pub(super) fn go_on<'a>(filesystem: &'a Filesystem, checking: &mut Option<Check<'a>>) -> Result<Answer> {
    let check = match checking {
        Some(check) => check,
        None => checking.insert(Check::new(filesystem)?),
    };
    check.advance().map(Answer::Check)
}
