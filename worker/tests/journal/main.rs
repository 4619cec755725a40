//! Journals left by real crashes, read in memory, compared with what the kernel makes of the same image by replaying it.
//!
//! Each test names the form of journal it is about and shows that the image has it. They need root and loop devices;
//! without, they say so and pass, and with LAZARET_REQUIRE_ALL=1 they fail.

mod broken;
mod crash;
mod log;
mod tree;
mod work;

use std::path::Path;
use std::process::Command;

use lazaret_policy::message::{Refusal, Replayed};
use lazaret_worker::device::Device;
use lazaret_worker::ext4::{Filesystem, Settings};

use crash::{Bench, Recipe, run};

/// Crashes, and compares everything. What was replayed.
fn same_as_the_kernel(recipe: &Recipe, work: impl FnOnce(&Path), shows: impl FnOnce(&Path, Replayed)) {
    if !crash::possible() {
        return;
    }
    let bench = Bench::new();
    let image = bench.crash(recipe, work);
    let features = run(Command::new("dumpe2fs").arg("-h").arg(&image));
    assert!(features.contains("needs_recovery"), "the journal is clean: {features}");

    let before = std::fs::read(&image).unwrap();
    let filesystem = open(&image).unwrap();
    let replayed = filesystem.replayed();
    let ours = tree::of_reader(&filesystem);
    assert!(std::fs::read(&image).unwrap() == before, "the image was changed");

    let mut right = tree::of_mount(bench.replayed(&image).path());
    let mut ours = ours;
    if replayed.fast_commits > 0 {
        tree::forget_what_a_replay_adds(&mut ours);
        tree::forget_what_a_replay_adds(&mut right);
    }
    tree::demand_same(&ours, &right);
    println!("{} objects, {replayed:?}", ours.len());
    assert!(replayed.transactions > 0 && replayed.blocks > 0);
    shows(&image, replayed);
}

fn open(image: &Path) -> Result<Filesystem, Refusal> {
    Filesystem::open(Device::from_bytes(std::fs::read(image).unwrap()), Settings::default())
}

/// Demands words of what dumpe2fs says of a journal.
fn journal_has(image: &Path, words: &[&str], not: &[&str]) {
    let text = run(Command::new("dumpe2fs").arg("-h").arg(image));
    let features = text.lines().find(|line| line.starts_with("Journal features:")).unwrap_or_default();
    assert!(words.iter().all(|word| features.contains(word)), "{features}");
    assert!(!not.iter().any(|word| features.contains(word)), "{features}");
}

#[test]
fn checksums_of_version_3_and_tags_of_64_bits() {
    let recipe = Recipe { mebibytes: 48, format: "-t ext4 -b 4096", options: "defaults" };
    same_as_the_kernel(&recipe, work::mixed, |image, _| {
        journal_has(image, &["journal_checksum_v3", "journal_64bit"], &[]);
    });
}

#[test]
fn checksums_of_version_3_and_tags_of_32_bits() {
    let recipe = Recipe { mebibytes: 48, format: "-t ext4 -b 1024 -O ^64bit", options: "defaults" };
    same_as_the_kernel(&recipe, work::mixed, |image, _| {
        journal_has(image, &["journal_checksum_v3"], &["journal_64bit"]);
    });
}

#[test]
fn no_checksums_and_tags_of_64_bits() {
    let recipe = Recipe { mebibytes: 48, format: "-t ext4 -b 2048 -O ^metadata_csum", options: "defaults" };
    same_as_the_kernel(&recipe, work::mixed, |image, _| {
        journal_has(image, &["journal_64bit"], &["checksum"]);
    });
}

#[test]
fn no_checksums_and_tags_of_32_bits() {
    let recipe = Recipe { mebibytes: 48, format: "-t ext4 -b 4096 -O ^metadata_csum,^64bit", options: "defaults" };
    same_as_the_kernel(&recipe, work::mixed, |image, _| journal_has(image, &[], &["checksum", "64bit"]));
}

#[test]
fn features_that_change_what_a_block_is() {
    for format in
        ["-t ext4 -b 4096 -O inline_data", "-t ext4 -b 1024 -O bigalloc", "-t ext4 -b 1024 -O meta_bg,^resize_inode"]
    {
        let recipe = Recipe { mebibytes: 48, format, options: "defaults" };
        same_as_the_kernel(&recipe, work::mixed, |_, _| ());
    }
}

#[test]
fn one_checksum_a_transaction() {
    for format in ["-t ext4 -b 1024 -O ^metadata_csum", "-t ext4 -b 4096 -O ^metadata_csum,^64bit"] {
        let recipe = Recipe { mebibytes: 48, format, options: "journal_checksum" };
        same_as_the_kernel(&recipe, work::mixed, |image, _| {
            journal_has(image, &["journal_checksum"], &["checksum_v"]);
        });
    }
}

#[test]
fn a_commit_block_before_its_transaction() {
    let recipe = Recipe {
        mebibytes: 48,
        format: "-t ext4 -b 1024 -O ^metadata_csum",
        options: "journal_async_commit,data=writeback",
    };
    same_as_the_kernel(&recipe, work::mixed, |image, _| {
        journal_has(image, &["journal_async_commit"], &[]);
    });
}

#[test]
fn a_journal_with_a_block_map() {
    let recipe = Recipe { mebibytes: 48, format: "-t ext3 -b 1024", options: "defaults" };
    same_as_the_kernel(&recipe, work::mixed, |image, _| {
        let inode = run(Command::new("debugfs").args(["-R", "stat <8>"]).arg(image));
        assert!(inode.contains("(IND)"), "{inode}");
    });
}

#[test]
fn a_log_that_went_round() {
    for format in ["-t ext4 -b 1024 -J size=1", "-t ext4 -b 4096 -J size=4", "-t ext3 -b 1024 -J size=1"] {
        let recipe = Recipe { mebibytes: 32, format, options: "defaults" };
        // Which part of the log counts changes with every block that reaches its place: crash when it is the right one.
        let work = |root: &Path| {
            let image = root.with_file_name("image");
            let wrapped = (0..1000).any(|number| {
                work::transaction(root, number);
                number % 5 == 0 && goes_round(&image)
            });
            assert!(wrapped, "the log never went round");
        };
        same_as_the_kernel(&recipe, work, |image, _| assert!(goes_round(image)));
    }
}

/// Whether a part of the log that counts lies in front of where it begins.
fn goes_round(image: &Path) -> bool {
    let log = run(Command::new("debugfs").args(["-R", "logdump"]).arg(image));
    let block = |line: &str| line.rsplit("block ").next().and_then(|number| number.trim().parse::<u32>().ok());
    let blocks: Vec<u32> = log.lines().filter(|line| line.starts_with("Found")).filter_map(block).collect();
    blocks.windows(2).any(|pair| pair[1] < pair[0])
}

#[test]
fn blocks_that_were_revoked() {
    for format in ["-t ext4 -b 1024 -J size=4", "-t ext4 -b 1024 -J size=4 -O ^64bit,^metadata_csum", "-t ext3 -b 1024"]
    {
        let recipe = Recipe { mebibytes: 16, format, options: "defaults" };
        same_as_the_kernel(&recipe, work::revokes, |_, replayed| assert!(replayed.revoked > 0));
    }
}

#[test]
fn blocks_that_were_escaped() {
    for format in ["-t ext4 -b 1024", "-t ext4 -b 4096", "-t ext3 -b 1024"] {
        let recipe = Recipe { mebibytes: 24, format, options: "data=journal" };
        same_as_the_kernel(&recipe, work::escapes, |image, _| {
            let log = run(Command::new("debugfs").args(["-R", "logdump -a"]).arg(image));
            assert!(["0x1)", "0x3)", "0x9)", "0xb)"].iter().any(|flags| log.contains(flags)), "{log}");
        });
    }
}

#[test]
fn fast_commits_of_names_and_ranges() {
    for format in [
        "-t ext4 -b 4096 -O fast_commit",
        "-t ext4 -b 1024 -O fast_commit",
        "-t ext4 -b 2048 -O fast_commit,^metadata_csum,^64bit",
        "-t ext4 -b 1024 -I 128 -O fast_commit",
        "-t ext4 -b 4096 -O fast_commit,inline_data",
    ] {
        let recipe = Recipe { mebibytes: 64, format, options: "defaults" };
        for work in [work::fast_commits_of_names, work::fast_commits_of_ranges] {
            same_as_the_kernel(&recipe, work, |image, replayed| {
                journal_has(image, &["FEATURE_I5"], &[]);
                assert!(replayed.fast_commits >= 5 && replayed.fast_changes >= 20, "{replayed:?}");
            });
        }
    }
}

#[test]
fn fast_commits_over_several_blocks() {
    for format in ["-t ext4 -b 1024 -O fast_commit", "-t ext4 -b 4096 -O fast_commit"] {
        let recipe = Recipe { mebibytes: 64, format, options: "defaults" };
        same_as_the_kernel(&recipe, work::long_fast_commits, |_, replayed| {
            assert!(replayed.fast_commits >= 2 && replayed.fast_changes >= 100, "{replayed:?}");
        });
    }
}

#[test]
fn fast_commits_in_directories_that_are_gone() {
    let recipe = Recipe { mebibytes: 64, format: "-t ext4 -b 4096 -O fast_commit", options: "defaults" };
    same_as_the_kernel(&recipe, work::fast_commits_in_directories_that_are_gone, |_, replayed| {
        assert!(replayed.fast_commits >= 2, "{replayed:?}");
    });
}

#[test]
fn fast_commits_in_directories_with_a_hash_tree() {
    for format in ["-t ext4 -b 1024 -O fast_commit", "-t ext4 -b 4096 -O fast_commit"] {
        let recipe = Recipe { mebibytes: 64, format, options: "defaults" };
        same_as_the_kernel(&recipe, work::fast_commits_in_a_large_directory, |_, replayed| {
            assert!(replayed.fast_commits >= 2, "{replayed:?}");
        });
    }
}
