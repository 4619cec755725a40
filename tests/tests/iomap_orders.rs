//! What a kernel can do to a worker that tells mappings, in an order or with numbers that no file asks for; what it must
//! not be told where one of three signs is missing; and that a worker whose mappings are wrong is found out.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lazaret_policy::message::Verity;
use lazaret_tests::double::file::Way;
use lazaret_tests::double::kernel::{Kernel, Offer};
use lazaret_tests::double::wire::{self, Io, bytes, number};
use lazaret_tests::double::worker::{Setup, Worker};
use lazaret_tests::many::debugfs;
use lazaret_tests::recipe;
use lazaret_tests::requirement::{self, MOUNTS, trial};
use lazaret_tests::workshop::Workshop;
use lazaret_tests::{Result, fill};

type Test = fn(&Workshop) -> Result;
/// What is done to each mapping.
type Lie = fn(&mut Io);

const TESTS: &[(&str, Test)] = &[
    ("what is wrong with a mapping is found", wrong_mappings_are_found),
    ("without one of the three signs it is a plain mount", without_a_sign),
    ("agreed upon and without a device it is a plain mount", without_a_device),
    ("a device that was not agreed upon ends the worker", a_device_unasked),
    ("a kernel that asks late", asks_late),
    ("who writes is refused", who_writes_is_refused),
    ("what makes no sense is refused", nonsense_is_refused),
    ("at the ends of files and of numbers", at_the_ends),
    ("the same question again and again", again_and_again),
    ("what is kept is lost at once", lost_at_once),
    ("a kernel that keeps little", keeps_little),
    ("forgotten and found again", forgotten),
    ("many mappings, here and there", here_and_there),
    ("asked by many at once", at_once),
    ("listed is as looked up", listed_as_looked_up),
    ("frozen and thawed", frozen),
];

fn main() {
    requirement::main(|workshop| TESTS.iter().map(|(name, test)| trial(*name, MOUNTS, workshop, *test)).collect())
}

fn mounted(workshop: &Workshop, name: &str, setup: Setup, offer: Offer) -> Result<(Kernel, Worker)> {
    let image = workshop.image(recipe::named(name))?;
    let (kernel, worker, _) = Kernel::mount(&image, setup, offer)?;
    Ok((kernel, worker))
}

fn plainly(workshop: &Workshop, name: &str) -> Result<(Kernel, Worker)> {
    mounted(workshop, name, Setup::default(), Offer::default())
}

fn find(kernel: &mut Kernel, path: &str) -> Result<u64> {
    let mut node = 1;
    for name in path.split('/') {
        node = kernel.lookup(node, name.as_bytes())?.map_err(|errno| format!("{path}: error {errno}"))?;
    }
    Ok(node)
}

fn whole(kernel: &mut Kernel, node: u64, way: Way) -> Result<Vec<u8>> {
    let (mut all, size) = (Vec::new(), kernel.nodes[&node].size);
    while (all.len() as u64) < size {
        all.extend(kernel.read(node, way, all.len() as u64)?.map_err(|errno| format!("error {errno}"))?);
    }
    Ok(all)
}

/// The test of the test: each of these is a worker that lies, and none gets through.
fn wrong_mappings_are_found(workshop: &Workshop) -> Result {
    let lies: [(&str, Lie); 9] = [
        ("no length", |io| io.length = 0),
        ("half a block", |io| io.length -= 512),
        ("another device", |io| io.dev = io.dev.wrapping_add(1)),
        ("no device", |io| io.dev = 0),
        ("a hole on the device", |io| io.kind = wire::HOLE),
        ("behind the device", |io| io.addr = if io.has_space() { 1 << 40 } else { io.addr }),
        ("the first inode table", |io| {
            io.addr = if io.has_space() { TABLE.with(|table| table.get()) } else { io.addr }
        }),
        ("behind the byte", |io| io.offset += 1 << 20),
        ("no type", |io| io.kind = 77),
    ];
    let image = workshop.image(recipe::default())?;
    let table = debugfs(&image, "stats")?;
    let table = table.split("inode table at ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    TABLE.with(|place| place.set(table.and_then(|table| table.parse::<u64>().ok()).unwrap_or(0) * 4096));
    for (lie, tamper) in lies {
        let (mut kernel, _worker) = plainly(workshop, "ext4")?;
        let node = find(&mut kernel, "sizes/1048579")?;
        kernel.tamper = Some(tamper);
        let read = whole(&mut kernel, node, Way::Buffered);
        assert!(read.is_err(), "a worker that tells {lie} gets through");
    }
    // No rule is broken by another file's blocks: the bytes show it.
    let (mut kernel, _worker) = plainly(workshop, "ext4")?;
    let node = find(&mut kernel, "sizes/1048579")?;
    let expected = fill::noise(1_048_579, 1_048_579);
    assert!(whole(&mut kernel, node, Way::Buffered)? == expected);
    kernel.forget(node)?;
    let node = find(&mut kernel, "sizes/1048579")?;
    kernel.tamper = Some(|io| io.addr = if io.has_space() { io.addr - 4096 } else { io.addr });
    assert!(whole(&mut kernel, node, Way::Buffered).is_ok_and(|bytes| bytes != expected), "shifted by a block");
    Ok(())
}

thread_local! {
    static TABLE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn is_plain(kernel: &mut Kernel) -> Result {
    let node = find(kernel, "sizes/65536")?;
    assert!(!kernel.nodes[&node].mapped);
    assert!(whole(kernel, node, Way::Buffered)? == fill::noise(65536, 65536));
    assert_eq!((kernel.counts.begins, kernel.counts.upserts, kernel.counts.invals), (0, 0, 0));
    Ok(())
}

fn without_a_sign(workshop: &Workshop) -> Result {
    let (no, yes) =
        (Setup { iomap: false, device: None, ..Setup::default() }, Setup { device: None, ..Setup::default() });
    let offers = [
        (no, Offer::default()),
        (yes, Offer { minor: 46, ..Offer::default() }),
        (yes, Offer { minor: 100, ..Offer::default() }),
        (yes, Offer { bit: false, ..Offer::default() }),
    ];
    for (setup, offer) in offers {
        let (mut kernel, worker) = mounted(workshop, "ext4", setup, offer)?;
        is_plain(&mut kernel).map_err(|error| format!("{offer:?}: {error}"))?;
        for opcode in [wire::FREEZE, wire::CONFIG, wire::BEGIN, wire::END, wire::IOEND] {
            assert_eq!(kernel.call(opcode, 1, &[0; 72])?, Err(libc::ENOSYS));
        }
        kernel.unmount()?;
        assert_eq!(worker.ended()?, Some(0));
    }
    Ok(())
}

fn without_a_device(workshop: &Workshop) -> Result {
    let setup = Setup { device: None, ..Setup::default() };
    let (mut kernel, _worker) = mounted(workshop, "ext4", setup, Offer::default())?;
    is_plain(&mut kernel)?;
    kernel.unmount()
}

fn a_device_unasked(workshop: &Workshop) -> Result {
    let image = workshop.image(recipe::default())?;
    let numbers = [(false, 7), (true, 0), (true, 1025), (true, u32::MAX)];
    for (iomap, device) in numbers {
        let setup = Setup { iomap, device: Some(device), ..Setup::default() };
        let error = Kernel::mount(&image, setup, Offer::default()).err().ok_or("it serves")?;
        assert!(error.to_string().contains("the other process has ended"), "{error}");
    }
    Ok(())
}

fn asks_late(workshop: &Workshop) -> Result {
    let offer = Offer { late: Duration::from_millis(700), ..Offer::default() };
    let (mut kernel, _worker) = mounted(workshop, "ext4", Setup::default(), offer)?;
    let node = find(&mut kernel, "sizes/65536")?;
    assert!(kernel.nodes[&node].mapped);
    assert!(whole(&mut kernel, node, Way::Direct)? == fill::noise(65536, 65536));
    assert_eq!(kernel.call(wire::CONFIG, 0, &[0; 64])?, Err(libc::EINVAL), "asked once");
    kernel.unmount()
}

fn who_writes_is_refused(workshop: &Workshop) -> Result {
    let (mut kernel, _worker) = plainly(workshop, "ext4")?;
    let node = find(&mut kernel, "sizes/65536")?;
    let write = [
        wire::OP_WRITE,
        wire::OP_WRITE | wire::OP_DIRECT,
        wire::OP_WRITE | wire::OP_FAULT,
        wire::OP_ZERO,
        wire::OP_UNSHARE,
        wire::OP_WRITEBACK,
        wire::OP_WRITE | wire::OP_ATOMIC | wire::OP_DIRECT,
        wire::OP_SWAPFILE | wire::OP_REPORT,
    ];
    for operation in write {
        assert_eq!(kernel.ask_begin(node, node, 0, 4096, operation)?, Err(libc::EROFS), "{operation:#x}");
        let end = bytes(&[(operation.into(), 4), (0, 4), (node, 8), (0, 8), (4096, 8), (4096, 8)]);
        assert_eq!(kernel.call(wire::END, node, &[end, vec![0; 32]].concat())?, Err(libc::EROFS));
    }
    assert_eq!(kernel.call(wire::IOEND, node, &[0; 48])?, Err(libc::EROFS));
    assert_eq!(kernel.call(wire::END, node, &[0; 72])?, Ok(vec![]));
    assert_eq!(kernel.counts.upserts, 0);
    kernel.unmount()
}

fn nonsense_is_refused(workshop: &Workshop) -> Result {
    let (mut kernel, worker) = plainly(workshop, "ext4")?;
    let (node, directory) = (find(&mut kernel, "sizes/65536")?, find(&mut kernel, "sizes")?);
    for unknown in [0x100, 0x800, 0x2000_0000] {
        assert_eq!(kernel.ask_begin(node, node, 0, 4096, unknown)?, Err(libc::EOPNOTSUPP), "{unknown:#x}");
    }
    for (of, ino) in [(node, node + 1), (node, 0), (directory, directory), (1, 2), (0, 0), (1 << 32, 1 << 32), (8, 9)] {
        assert_eq!(kernel.ask_begin(of, ino, 0, 4096, 0)?, Err(libc::EINVAL), "{of} {ino}");
    }
    for (of, refused) in [(u64::from(u32::MAX), libc::EINVAL), (8, 0)] {
        // The journal is a file like others to who knows its number.
        let answer = kernel.ask_begin(of, of, 0, 4096, 0)?.err().unwrap_or(0);
        assert!(answer == refused || [libc::ENOENT, libc::EUCLEAN, libc::EINVAL].contains(&answer), "{of}: {answer}");
    }
    assert_eq!(kernel.ask_begin(node, node, 0, 0, 0)?, Err(libc::EINVAL), "nothing is asked for");
    for opcode in [wire::BEGIN, wire::END] {
        for length in [0, 1, 31, 33, 71, 73, 4000] {
            assert_eq!(kernel.call(opcode, node, &vec![0; length])?, Err(libc::EINVAL), "{opcode} of {length}");
        }
    }
    assert_eq!(kernel.counts.upserts, 0);
    kernel.unmount()?;
    assert_eq!(worker.ended()?, Some(0));
    Ok(())
}

fn at_the_ends(workshop: &Workshop) -> Result {
    for name in ["ext4", "blocks-of-1k", "ext2"] {
        let (mut kernel, _worker) = plainly(workshop, name)?;
        for path in
            ["sizes/0", "sizes/1", "sizes/4096", "sizes/4097", "holes/only-odd", "holes/behind", "holes/far-apart"]
        {
            let node = find(&mut kernel, path)?;
            let (size, last) = (kernel.nodes[&node].size, i64::MAX as u64);
            let places = [0, size, size + 1, size.next_multiple_of(4096), size + (1 << 20), 1 << 32, (1 << 44) - 4096];
            let far = [1 << 44, 1 << 62, last - 4095, last - 1, last];
            for pos in places.into_iter().chain(far) {
                for count in [1, 512, 4096, last - pos.min(last - 1)] {
                    let io = kernel.begin(node, pos, count, wire::OP_REPORT)?.map_err(|errno| format!("{errno}"))?;
                    assert!(
                        pos < size || !matches!(io.kind, wire::MAPPED | wire::INLINE) || pos < size + 65536,
                        "{io:?}"
                    );
                }
            }
            for pos in [last + 1, u64::MAX, u64::MAX - 4095] {
                assert_eq!(kernel.ask_begin(node, node, pos, 4096, 0)?, Err(libc::EINVAL));
            }
            for count in [u64::MAX, 1 << 63] {
                assert!(kernel.ask_begin(node, node, 0, count, 0)?.is_ok());
            }
        }
        kernel.unmount()?;
    }
    Ok(())
}

/// Nothing of an answer hangs on what the kernel keeps, so a storm is answered question by question.
fn again_and_again(workshop: &Workshop) -> Result {
    let (mut kernel, _worker) = plainly(workshop, "ten-thousand-extents")?;
    let node = find(&mut kernel, "extents-30000")?;
    let first = kernel.ask_begin(node, node, 0, 4096, 0)?;
    let start = Instant::now();
    for _ in 0..200 {
        assert_eq!(kernel.ask_begin(node, node, 0, 4096, 0)?, first);
    }
    let took = start.elapsed() / 200;
    let each = kernel.counts.upserts / kernel.counts.begins;
    eprintln!("a question with {each} mappings takes {took:?}");
    assert!(each <= kernel.most_kept());
    kernel.unmount()
}

fn lost_at_once(workshop: &Workshop) -> Result {
    let (mut kernel, _worker) = plainly(workshop, "ext4")?;
    kernel.forgetful = true;
    for (path, length) in [("sizes/6291456", 6 << 20), ("sizes/4097", 4097)] {
        let node = find(&mut kernel, path)?;
        assert!(whole(&mut kernel, node, Way::Buffered)? == fill::noise(length as u64, length));
        assert!(kernel.nodes[&node].cache.as_ref().is_some_and(|cache| cache.is_empty()));
    }
    assert!(kernel.counts.begins >= 48, "a question for each window: {:?}", kernel.counts);
    kernel.unmount()
}

/// The least that a kernel keeps of a file is one node, and one that says nothing of it keeps something.
fn keeps_little(workshop: &Workshop) -> Result {
    // Less than a node, the kernel does not keep by its own account.
    for cache_bytes in [256, 4096, 2 << 20, u64::from(u32::MAX)] {
        let offer = Offer { cache_bytes, ..Offer::default() };
        let (mut kernel, _worker) = mounted(workshop, "ext4", Setup::default(), offer)?;
        let node = find(&mut kernel, "sizes/grown-in-turns")?;
        let plain = kernel.plain_read(node, 0, 1 << 20)?;
        let before = kernel.counts;
        assert_eq!(Ok(whole(&mut kernel, node, Way::Buffered)?), plain);
        let (begins, told) = (kernel.counts.begins - before.begins, kernel.counts.upserts - before.upserts);
        let worth = kernel.most_kept().min(8192);
        assert!(begins <= 1 + told / worth, "{cache_bytes}: {begins} questions for {told}");
        assert_eq!(kernel.nodes[&node].cache.as_ref().map(|cache| cache.wiped), Some(0), "{cache_bytes}");
        kernel.unmount()?;
    }
    Ok(())
}

fn forgotten(workshop: &Workshop) -> Result {
    let (mut kernel, _worker) = plainly(workshop, "ext4")?;
    for turn in 1..=20 {
        let node = find(&mut kernel, "sizes/1048579")?;
        assert!(whole(&mut kernel, node, Way::Fault)? == fill::noise(1_048_579, 1_048_579));
        assert_eq!(kernel.counts.begins, turn, "a file that was forgotten is asked for once more");
        kernel.forget(node)?;
    }
    kernel.unmount()
}

/// Who reads here and there is not told of thousands of mappings each time.
fn here_and_there(workshop: &Workshop) -> Result {
    let (mut kernel, _worker) = plainly(workshop, "ten-thousand-extents")?;
    let node = find(&mut kernel, "extents-30000")?;
    let blocks = kernel.nodes[&node].size / 1024;
    let mut seen = BTreeSet::new();
    for turn in 1..400 {
        let block = turn * 7919 % blocks;
        if let Ok(io) = kernel.begin(node, block * 1024, 1024, wire::OP_DIRECT)? {
            assert_eq!(io.kind == wire::MAPPED, block % 2 == 0, "{io:?}");
            seen.insert(block);
        }
    }
    let each = kernel.counts.upserts / kernel.counts.begins;
    assert!(seen.len() == 399 && each <= 16, "{each} mappings for each question");
    kernel.unmount()
}

/// Four threads answer, and whoever asked first is not always answered first.
fn at_once(workshop: &Workshop) -> Result {
    let setup = Setup { threads: 4, ..Setup::default() };
    let (mut kernel, worker) = mounted(workshop, "ten-thousand-extents", setup, Offer::default())?;
    let node = find(&mut kernel, "extents-10000")?;
    let asked: Vec<u64> = (0..64)
        .map(|turn| {
            let body = bytes(&[(0, 4), (0, 4), (node, 8), (turn % 4 * 2048, 8), (1024, 8)]);
            kernel.ask(wire::BEGIN, node, &body)
        })
        .collect::<Result<_>>()?;
    let mut waiting: BTreeSet<u64> = asked.into_iter().collect();
    while !waiting.is_empty() {
        let (of, answer) = kernel.next_answer()?;
        assert!(waiting.remove(&of), "{of} is answered twice");
        let answer = answer.map_err(|errno| format!("error {errno}"))?;
        assert_eq!((answer.len(), number(&answer, 24, 2)), (64, wire::MAPPED.into()));
    }
    kernel.unmount()?;
    assert_eq!(worker.ended()?, Some(0));
    Ok(())
}

fn listed_as_looked_up(workshop: &Workshop) -> Result {
    for name in ["ext4", "blocks-of-1k", "inline-data"] {
        let (mut kernel, _worker) = plainly(workshop, name)?;
        for path in ["sizes", "holes", "symlinks", "names", "directories/many"] {
            let directory = find(&mut kernel, path)?;
            let listed = kernel.list(directory)?;
            let how: Vec<(u64, bool)> = listed.iter().map(|(_, node)| (*node, kernel.nodes[node].mapped)).collect();
            for ((entry, node), (_, mapped)) in listed.iter().zip(how) {
                kernel.forget(*node)?;
                assert_eq!(kernel.lookup(directory, entry)?, Ok(*node));
                assert_eq!(kernel.nodes[node].mapped, mapped);
                let regular = kernel.nodes[node].mode & libc::S_IFMT == libc::S_IFREG;
                assert_eq!(mapped, regular, "{}", String::from_utf8_lossy(entry));
            }
            assert!(listed.len() > 4, "{path}");
        }
        kernel.unmount()?;
    }
    Ok(())
}

fn frozen(workshop: &Workshop) -> Result {
    // What is sealed and to be checked is read; seals that nobody checks are no reason to.
    let setup = Setup { verity: Verity::Verify, ..Setup::default() };
    let (mut kernel, worker) = mounted(workshop, "ext4", setup, Offer::default())?;
    for (opcode, body) in [(wire::FREEZE, &[0; 8][..]), (wire::UNFREEZE, &[]), (wire::SHUTDOWN, &[0; 8])] {
        assert_eq!(kernel.call(opcode, 1, body)?, Ok(vec![]));
    }
    let node = find(&mut kernel, "sizes/65536")?;
    assert!(whole(&mut kernel, node, Way::Buffered)? == fill::noise(65536, 65536));
    kernel.unmount()?;
    assert_eq!(worker.ended()?, Some(0));
    Ok(())
}
