//! A temporary directory for a run of tests, where every image is made once and kept until the run ends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use tempfile::TempDir;

use crate::block::KernelMount;
use crate::recipe::{Recipe, UUID};
use crate::{Result, command, lazaret};

type Slot = Arc<OnceLock<std::result::Result<PathBuf, String>>>;

/// Where images are made and mounted. Dropping it removes everything: drop it before the process exits.
pub struct Workshop {
    directory: TempDir,
    images: Mutex<HashMap<&'static str, Slot>>,
}

impl Workshop {
    /// An empty one, below `TMPDIR`, with a copy of the programs under test. One for each process.
    pub fn open() -> Result<Arc<Self>> {
        let directory = tempfile::Builder::new().prefix("lazaret-tests-").tempdir()?;
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        lazaret::install(&directory.path().join("programs"))?;
        Ok(Arc::new(Self { directory, images: Mutex::default() }))
    }

    /// A new, empty directory of this name.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The image of a recipe: made by whoever asks first. Nobody may change it; take a [`copy`](Self::copy) for that.
    pub fn image(&self, recipe: &'static Recipe) -> Result<PathBuf> {
        let slot = self.images.lock().expect("no holder panics").entry(recipe.name).or_default().clone();
        slot.get_or_init(|| self.make(recipe).map_err(|error| error.to_string())).clone().map_err(Into::into)
    }

    /// A copy of a recipe's image, to be changed. Holes stay holes.
    pub fn copy(&self, recipe: &'static Recipe, to: &Path) -> Result<PathBuf> {
        let image = self.image(recipe)?;
        let copy = to.join("image.img");
        command::run(Command::new("cp").arg("--sparse=always").arg(image).arg(&copy))?;
        Ok(copy)
    }

    /// An image of the same kind in which nothing was written, with more room, for a copy of what is in the recipe's.
    pub fn empty(&self, recipe: &Recipe, to: &Path) -> Result<PathBuf> {
        let image = to.join("empty.img");
        format(recipe, &image, recipe.mebibytes + 32)?;
        Ok(image)
    }

    fn make(&self, recipe: &Recipe) -> Result<PathBuf> {
        let image = self.directory.path().join(format!("{}.img", recipe.name));
        format(recipe, &image, recipe.mebibytes)?;
        tools(recipe.prepare, &image)?;
        let mounted = KernelMount::writable(&image, &self.directory(&format!("{}.fill", recipe.name))?)?;
        for fill in recipe.fill {
            fill(mounted.path()).map_err(|error| format!("filling {}: {error}", recipe.name))?;
        }
        mounted.unmount()?;
        tools(recipe.finish, &image)?;
        command::run(Command::new("e2fsck").args(["-f", "-n"]).arg(&image))?;
        (recipe.proof)(&image).map_err(|error| format!("{} is not what it should be: {error}", recipe.name))?;
        Ok(image)
    }
}

/// An image with this content, in blocks of 4 KiB and otherwise as these arguments of mke2fs say, which copies a directory
/// into it.
pub fn image_of(place: &Path, arguments: &[&str], fill: impl FnOnce(&Path) -> Result) -> Result<PathBuf> {
    let (tree, image) = (place.join("tree"), place.join("image.img"));
    std::fs::create_dir_all(&tree)?;
    fill(&tree)?;
    std::fs::File::create(&image)?.set_len(64 << 20)?;
    let mut mke2fs = Command::new("mke2fs");
    command::run(mke2fs.args(["-q", "-F", "-b", "4096"]).args(arguments).arg("-d").arg(&tree).arg(&image))?;
    std::fs::remove_dir_all(&tree)?;
    Ok(image)
}

/// Makes a file system as a recipe says.
fn format(recipe: &Recipe, image: &Path, mebibytes: u64) -> Result {
    std::fs::File::create(image)?.set_len(mebibytes << 20)?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-U", UUID, "-E"]).arg(format!("hash_seed={UUID}")).args(recipe.arguments).arg(image);
    mke2fs.env("E2FSPROGS_FAKE_TIME", "1500000000").env("SOURCE_DATE_EPOCH", "1500000000");
    command::run(&mut mke2fs).map(drop)
}

/// Runs each tool with the image's path in the place of the word `IMAGE`.
fn tools(lines: &[&[&str]], image: &Path) -> Result {
    for line in lines {
        let mut words = line.iter().map(|word| if *word == "IMAGE" { image.as_os_str() } else { (*word).as_ref() });
        let mut tool = Command::new(words.next().ok_or("an empty line of tools")?);
        command::run(tool.args(words))?;
    }
    Ok(())
}
