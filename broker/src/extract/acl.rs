//! An access control list as the text that archives have it in: `user::rw-,user:1000:r--,group::r--,mask::rw-,other::---`.
//!
//! What holds here: the list comes from a process that may lie; what is no list has no text.

/// Bytes of an entry: tag, permissions, id.
const ENTRY: usize = 8;
/// The version in front of the entries.
const VERSION: [u8; 4] = [2, 0, 0, 0];
/// The most entries: as many as an extended attribute holds.
const MOST: usize = 8192;

/// The list in the form of the system calls, as text.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&VERSION)?;
    if entries.len() % ENTRY != 0 || entries.len() > MOST * ENTRY {
        return None;
    }
    let words: Option<Vec<String>> = entries.chunks_exact(ENTRY).map(entry).collect();
    words.map(|words| words.join(","))
}

fn entry(bytes: &[u8]) -> Option<String> {
    let [tag, _, rights, _, id @ ..] = *<&[u8; ENTRY]>::try_from(bytes).ok()?;
    let id = u32::from_le_bytes(id);
    let who = match tag {
        0x01 => "user:".to_owned(),
        0x02 => format!("user:{id}"),
        0x04 => "group:".to_owned(),
        0x08 => format!("group:{id}"),
        0x10 => "mask:".to_owned(),
        0x20 => "other:".to_owned(),
        _ => return None,
    };
    let letter = |bit, letter| if rights & bit == 0 { '-' } else { letter };
    Some(format!("{who}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_its_text_and_nothing_else_has_one() {
        let mut list = VERSION.to_vec();
        for (tag, rights, id) in [(1_u8, 6_u8, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 7, 0), (0x20, 0, 0)] {
            list.extend_from_slice(&[[tag, 0, rights, 0], id.to_le_bytes()].concat());
        }
        assert_eq!(text(&list).unwrap(), "user::rw-,user:1000:r--,group::r--,mask::rwx,other::---");
        assert_eq!(text(&list[..list.len() - 1]), None);
        assert_eq!(text(&[&list[..], &[3, 0, 0, 0, 0, 0, 0, 0]].concat()), None);
        assert_eq!(text(b""), None);
    }
}
