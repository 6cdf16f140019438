//! The tools that the tests need besides Rust, and their installation on Debian.

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

/// A program and its Debian package.
const TOOLS: [(&str, &str); 18] = [
    ("cc", "gcc libc6-dev"),
    // Main programs in other languages.
    ("c++", "g++"),
    ("python3", "python3"),
    ("valgrind", "valgrind"),
    // Plugins in other languages.
    ("make", "make"),
    ("go", "golang-go"),
    ("strip", "binutils"),
    ("objcopy", "binutils"),
    ("unshare", "util-linux"),
    ("shellcheck", "shellcheck"),
    // File systems that are watched.
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.xfs", "xfsprogs"),
    // Slow HTTP clients.
    ("slowhttptest", "slowhttptest"),
    // A browser, and the program through which others steer it.
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
    // The linkers that authors use.
    ("mold", "mold"),
    ("ld.lld", "lld"),
];

/// Installs what is missing.
///
/// # Errors
/// Lists the missing packages if they cannot be installed.
pub(super) fn install() -> Result<()> {
    let shell = Shell::new()?;
    let mut packages: Vec<_> = TOOLS
        .iter()
        .filter(|(program, _)| which(&shell, program).is_none())
        .flat_map(|(_, packages)| packages.split(' '))
        .collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let uid = cmd!(shell, "id -u").quiet().read().unwrap_or_default();
    if uid != "0" || which(&shell, "apt-get").is_none() {
        bail!("the tests need the Debian packages {list}; install them as root and try again");
    }
    crate::output::note(format_args!("installing {list}"));
    cmd!(shell, "apt-get update --quiet --quiet")
        .quiet()
        .run()?;
    cmd!(
        shell,
        "apt-get install --quiet --quiet --yes --no-install-recommends {packages...}"
    )
    .env("DEBIAN_FRONTEND", "noninteractive")
    .quiet()
    .run()?;
    Ok(())
}

fn which(shell: &Shell, program: &str) -> Option<String> {
    let question = format!("command -v {program}");
    cmd!(shell, "sh -c {question}")
        .quiet()
        .ignore_stderr()
        .read()
        .ok()
        .filter(|path| !path.is_empty())
}
