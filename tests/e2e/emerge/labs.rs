//! The labs themselves: a throwaway Portage is thrown away, and builds with this machine's Rust.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use hotmerge_tests::repository;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::lab::{Lab, Mode, cache, is_root, said, script};

#[test]
fn a_terminated_lab_takes_everything_with_it() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let lab = Lab::closed(Mode::Root)?;
        let mut outer = lab.command(&["bash", "-c", "echo open; exec sleep infinity"]);
        let mut outer = outer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = outer.stdout.take().context("its output is a pipe")?;
        let mut said = BufReader::new(stdout);
        let mut line = String::new();
        said.read_line(&mut line)?;
        ensure!(line == "open\n", "the lab did not open");
        let inner: i32 = fs::read_to_string(lab.path("open.pid"))?.trim().parse()?;
        let inner = Pid::from_raw(inner).context("a process id")?;
        ensure!(test_kill_process(inner).is_ok());

        kill_process(Pid::from_child(&outer), signal)?;
        ensure!(!outer.wait()?.success());
        // Everything that holds the pipe has ended.
        line.clear();
        ensure!(said.read_line(&mut line)? == 0, "the lab goes on: {line}");
    }
    Ok(())
}

/// A real tree has newer ones, which would be built for hours.
#[test]
fn a_lab_uses_no_rust_from_its_repository() -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("main-")
        .tempdir_in(cache()?.parent().context("the cache lies somewhere")?)?;
    let main = dir.path().join("gentoo");
    said(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(repository().join("tests/gentoo/repo"))
            .arg(&main),
    )?;
    for package in ["rust", "rust-bin"] {
        let package_dir = main.join("dev-lang").join(package);
        fs::copy(
            package_dir.join(format!("{package}-1.95.0.ebuild")),
            package_dir.join(format!("{package}-9999.0.0.ebuild")),
        )?;
    }
    let lab = dir.path().join("lab");
    let mut setup = script("portage-lab");
    setup.arg("setup").arg(&lab).arg("--gentoo-repo").arg(&main);
    setup.arg("--cache").arg(cache()?);
    said(&mut setup)?;
    let mut pretend = script("portage-lab");
    pretend.arg("run").arg(&lab).args(["emerge", "--pretend"]);
    pretend.arg("app-admin/hotmerge");
    let plan = said(&mut pretend)?;
    ensure!(
        plan.contains("dev-lang/rust-bin") && !plan.contains("9999.0.0"),
        "{plan}"
    );
    Ok(())
}
