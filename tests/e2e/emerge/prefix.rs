//! A prefix: Portage and host in a directory, without any service manager.

use anyhow::{Result, ensure};

use crate::{
    calls::{Calls, greeting},
    lab::Lab,
    packages::Greeter,
};

const ALPHA_1: Greeter = Greeter::new("alpha", "1.0.0", "Hello");
const ALPHA_2: Greeter = Greeter::new("alpha", "2.0.0", "Good day");

#[test]
fn the_host_of_a_prefix_follows_emerge_there() -> Result<()> {
    let lab = Lab::in_prefix_with_host()?;
    ALPHA_1.add_to(&lab)?;
    ALPHA_2.add_to(&lab)?;

    let log = lab.emerge(&["=app-misc/alpha-1.0.0"])?;
    ensure!(
        log.contains("No hotmerge host was notified of alpha: none runs in"),
        "{log}"
    );

    let host = lab.serve()?;
    ensure!(greeting(&lab, "alpha")? == "Hello");
    let calls = Calls::start(&lab, &["alpha"])?;
    let log = lab.emerge(&["=app-misc/alpha-2.0.0"])?;
    ensure!(log.contains("Asking the hotmerge host"), "{log}");
    ensure!(lab.plugin("alpha")?.generation == 2 && greeting(&lab, "alpha")? == "Good day");
    calls.none_failed()?;

    let log = lab.unmerge("app-misc/alpha")?;
    ensure!(log.contains("Asking the hotmerge host"), "{log}");
    ensure!(lab.plugin("alpha").is_err(), "alpha still runs");
    drop(host);
    Ok(())
}
