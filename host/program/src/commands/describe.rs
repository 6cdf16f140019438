//! `hotmerge describe`: a plugin's description of its methods.

use std::{fmt, time::Duration};

use clap::Args;
use hotmerge_meta::{
    PluginName,
    control::{DescribedMethod, Description, Payload, PluginParams, method},
    plain,
};

use super::{complete, host::HostArguments};
use crate::{exit::CommandError, output};

/// Show a running plugin's methods: media types and what each does.
#[derive(Args, Debug)]
pub(super) struct Describe {
    /// Plugin name
    #[arg(add = complete::plugins())]
    plugin: PluginName,
    #[command(flatten)]
    host: HostArguments,
    /// Seconds to wait for the host
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Print one JSON object, with the JSON schemas
    #[arg(long)]
    json: bool,
}

impl Describe {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let plugin = self.plugin;
        let timeout = Duration::from_secs(self.timeout);
        let description: Description =
            self.host
                .ask(method::DESCRIBE, &PluginParams { plugin }, timeout)?;
        if self.json {
            output::print_json(&description)?;
        } else {
            output::print(Shown(&description));
        }
        Ok(())
    }
}

/// A paragraph per method. All of it is the plugin's word.
struct Shown<'a>(&'a Description);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, described) in self.0.methods.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            method_lines(f, described)?;
        }
        Ok(())
    }
}

fn method_lines(f: &mut fmt::Formatter<'_>, method: &DescribedMethod) -> fmt::Result {
    writeln!(f, "{}", plain(&method.name))?;
    if !method.summary.is_empty() {
        writeln!(f, "  {}", plain(&method.summary))?;
    }
    for (label, payload) in [("takes", &method.request), ("replies", &method.reply)] {
        if let Some(types) = types(payload) {
            writeln!(f, "  {label:<8}{types}")?;
        }
    }
    Ok(())
}

fn types(payload: &Payload) -> Option<String> {
    let all: Vec<_> = payload
        .content_types
        .iter()
        .map(|text| plain(text))
        .collect();
    (!all.is_empty()).then(|| all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_per_method() {
        let text = "text/plain; charset=utf-8".to_owned();
        let described = |name: &str, summary: &str, reply: &[String]| DescribedMethod {
            name: name.to_owned(),
            summary: summary.to_owned(),
            reply: Payload {
                content_types: reply.to_vec(),
                schema: None,
            },
            ..DescribedMethod::default()
        };
        let mut both = described(
            "greet",
            "Greets whom the request names",
            std::slice::from_ref(&text),
        );
        both.request.content_types = vec![text, "application/json".to_owned()];
        let methods = vec![both, described("bare\u{1b}[1m", "", &[])];
        insta::assert_snapshot!(Shown(&Description { methods }).to_string());
    }
}
