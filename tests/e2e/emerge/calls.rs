//! Calls that continue while packages come and go.

use std::{
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use hotmerge_tests::copy_program;
use serde_json::Value;

use crate::lab::Lab;

/// Calls under way, to each of some plugins in turn, until they are counted.
pub(crate) struct Calls(Child);

impl Calls {
    /// Starts calling.
    pub(crate) fn start(lab: &Lab, plugins: &[&str]) -> Result<Self> {
        let program = lab.path("caller");
        // Not every directory of this machine is to be seen in a lab; its own is.
        copy_program(Path::new(env!("CARGO_BIN_EXE_caller")), &program);
        let program = program.to_str().context("a path is UTF-8")?;
        let runtime_dir = lab.runtime_dir();
        let words = [&[program, &*runtime_dir], plugins].concat();
        let mut caller = lab.command(&words);
        caller.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(caller.spawn()?))
    }

    /// Stops calling; an error unless there were calls and every one was answered. Returns every
    /// greeting that was seen, once, in the order of appearance.
    pub(crate) fn none_failed(mut self) -> Result<Vec<String>> {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output()?;
        ensure!(
            output.status.success(),
            "the caller ended with {}",
            output.status
        );
        let tally: Value = serde_json::from_slice(&output.stdout)?;
        let list = |name: &str| {
            let list = tally[name].as_array().into_iter().flatten();
            list.filter_map(|text| Some(text.as_str()?.to_owned()))
                .collect::<Vec<_>>()
        };
        let failed = list("failed");
        ensure!(
            failed.is_empty(),
            "{} calls failed, such as {:?}",
            failed.len(),
            failed[0]
        );
        let answered = tally["answered"].as_u64().unwrap_or_default();
        ensure!(answered > 0, "there were no calls");
        Ok(list("greetings"))
    }
}

/// What a plugin greets with now.
pub(crate) fn greeting(lab: &Lab, plugin: &str) -> Result<String> {
    let text = lab.host(&format!("call {plugin} greet --input - <<< Larry"))?;
    let (greeting, _) = text
        .split_once(", Larry!")
        .context("a greeting and a name")?;
    Ok(greeting.to_owned())
}
