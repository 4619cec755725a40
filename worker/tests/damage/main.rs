//! One field broken, every checksum made right again: the rule that is told, its place, and that nothing else is lost.
//!
//! Each case takes a sound image, breaks one thing in it and walks all of it before and after. What the walk finds is
//! the one rule at the one place, and every object that the damage does not concern has the same answers as before. The
//! rooms are those of the format; [`every_rule_is_shown_broken`] holds the whole list of rules against them.

#[path = "../image/mod.rs"]
mod image;

mod attributes;
mod case;
mod directory;
mod inline;
mod inode;
mod maps;
mod names;
mod rules;
mod superblock;
mod verity;
mod walk;
