//! Names and targets of ciphertext. No key is needed to break them: a directory only says that its names are encrypted,
//! and what stands there is then taken for ciphertext.

use std::fs;
use std::os::unix::fs::symlink;

use lazaret_policy::corruption::{Place, Rule};

use crate::case::{Case, Shape, Sound, at, block_of, hold};
use crate::image::{Image, pattern};

/// The flag of an encrypted inode, in its second byte.
const ENCRYPT: u8 = 0x08;

static SHAPE: Sound = Sound(|| {
    let mut image = Image::make("-t ext4 -b 4096 -O encrypt,^has_journal", "8M", |root| {
        fs::write(root.join("other"), pattern(5000)).unwrap();
        // Two bytes of length in front of 20 of ciphertext.
        symlink("\x14\x01abcdefghijklmnopqrst", root.join("link")).unwrap();
        fs::create_dir(root.join("directory")).unwrap();
        for number in 0..5 {
            fs::write(root.join(format!("directory/a name of more than 16 bytes {number}")), b"x").unwrap();
        }
    });
    for path in ["/link", "/directory"] {
        let number = image.number(path);
        let flags = image.bytes[image.inode(number) + 0x21];
        image.break_inode(number, 0x21, &[flags | ENCRYPT]);
    }
    let number = image.number("/link");
    image.break_inode(number, 0x28, &[20, 0]);
    Shape::of(image)
});

/// Writes the length in front of the target.
macro_rules! target {
    ($length:expr) => {
        Case {
            rule: Rule::EncryptedTarget,
            shape: &SHAPE,
            lost: &["/link"],
            damage: |image| {
                let number = image.number("/link");
                let length: u16 = $length;
                image.break_inode(number, 0x28, &length.to_le_bytes());
                at(number)
            },
        }
    };
}

pub(crate) const CASES: &[Case] = &[
    target!(0),
    target!(15),
    target!(59),
    target!(u16::MAX),
    // The third entry's name becomes one byte shorter than ciphertext can be.
    Case {
        rule: Rule::EncryptedName,
        shape: &SHAPE,
        lost: &["/directory"],
        damage: |image| {
            let number = image.number("/directory");
            let block = block_of(image, number, 0);
            image.break_directory(number, block, 24 + 6, &[15]);
            Place::Directory { inode: number.value(), block: 0, offset: 24 }
        },
    },
];

#[test]
fn names_and_targets_of_ciphertext() {
    hold(CASES);
}
