//! The Debian package of the programs that are tested, and what `make install` does without one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::debian::Debian;
use crate::{Result, command};

/// Where it lies in a Debian.
pub const PLACE: &str = "/run/lazaret.deb";

/// Builds it, once.
fn built() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| error.to_string())).clone().map_err(Into::into)
}

fn build() -> Result<PathBuf> {
    let mut make = Command::new("make");
    Ok(PathBuf::from(command::run(by_make(make.args(["--no-print-directory", "deb"]).args(AS_TESTED)))?.trim()))
}

/// The programs that are tested, and no others.
const AS_TESTED: [&str; 2] = ["BUILD=--profile checks", "PACKAGES=--workspace"];

/// Where make runs, and as no part of the make that may have started the tests.
fn by_make(command: &mut Command) -> &mut Command {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    command.current_dir(source).env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS")
}

/// What it writes to lies above what is there, and is not seen outside.
const INSTALL: &str = r#"
mount -t tmpfs none "$PLACE"
cd "$PLACE"
for name in local sbin; do
    mkdir -p usr/$name work/$name
    mount -t overlay overlay -o "lowerdir=/usr/$name,upperdir=$PLACE/usr/$name,workdir=$PLACE/work/$name" /usr/$name
done
cd "$OLDPWD"
make --no-print-directory install "$@" >&2
tar --create --directory "$PLACE" usr
"#;

/// Lays into a Debian what a plain `make install` writes, with this empty directory for it.
pub fn install_by_make(debian: &Debian, place: &Path) -> Result {
    let archive = place.with_extension("tar");
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "bash", "-euc", &format!("({INSTALL}) >\"$ARCHIVE\""), "bash"]).args(AS_TESTED);
    command::run(by_make(shell.env("PLACE", place).env("ARCHIVE", &archive)))?;
    std::fs::copy(&archive, debian.path("/run/installed.tar"))?;
    debian.run("tar --extract --no-overwrite-dir --file /run/installed.tar --directory /").map(drop)
}

/// Lays it into a Debian.
pub fn bring(debian: &Debian) -> Result {
    std::fs::copy(built()?, debian.path(PLACE))?;
    Ok(())
}

/// Puts it in.
pub fn install(debian: &Debian) -> Result {
    bring(debian)?;
    debian.run(&format!("dpkg --install {PLACE}")).map(drop)
}

/// Demands that each shell finds what there is for it in a desktop's session, and completes a command and an option.
pub fn completes(debian: &Debian) -> Result {
    let bash = "source /usr/share/bash-completion/bash_completion; _comp_load lazaret; \
                for words in 'lazaret ch' 'lazaret extract --ta'; do \
                COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); \
                _lazaret lazaret ${COMP_WORDS[-1]} ${COMP_WORDS[-2]}; echo ${COMPREPLY[@]}; done";
    let fish = "complete -C 'lazaret ch'; complete -C 'lazaret extract --ta'";
    // A zsh completes for a terminal only, so that one is made for it.
    let zsh = "zmodload zsh/zpty; zpty shell TERM=dumb zsh -f -i
        zpty -w shell 'autoload -Uz compinit; compinit -u -D; bindkey \"^I\" complete-word; print RE\"\"ADY'
        zpty -r -m shell all '*READY*'
        zpty -w -n shell $'lazaret ch\\t; lazaret extract --ta\\t /x; print \"END\"ED\\n'
        zpty -r -m shell all '*ENDED*'
        print -r -- $all";
    for (shell, script) in [("bash", bash), ("fish", fish), ("zsh", zsh)] {
        let finished = debian.finish(&format!(
            "export PATH=/usr/local/bin:$PATH XDG_DATA_DIRS=/usr/local/share:/usr/share HOME=$(mktemp --directory)
             timeout 20 {shell} -c {}",
            quoted(script)
        ))?;
        let said = &finished.stdout;
        assert!(said.contains("check") && said.contains("--tar"), "{shell}: {said}{}", finished.stderr);
    }
    Ok(())
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
