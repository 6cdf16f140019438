//! `hotmerge completions`: shell completions.

use clap::Args;
use clap_complete::{Shell, env::Shells};

use super::complete;
use crate::{exit::CommandError, output};

/// Print shell completions.
///
/// The script calls this program, which completes the names of running plugins and their methods.
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// Shell
    shell: Shell,
}

/// A script in a directory of functions is run by the first completion, which it must answer.
const ZSH_FIRST: &str = "
if [ \"$funcstack[1]\" = \"_hotmerge\" ]; then
    _clap_dynamic_completer_hotmerge \"$@\"
fi
";

impl Completions {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let (shells, name) = (Shells::builtins(), self.shell.to_string());
        let mut script = Vec::new();
        if let Some(shell) = shells.completer(&name) {
            shell.write_registration(
                complete::VARIABLE,
                "hotmerge",
                "hotmerge",
                "hotmerge",
                &mut script,
            )?;
        }
        if self.shell == Shell::Zsh {
            script.extend(ZSH_FIRST.as_bytes());
        }
        output::write(&script);
        Ok(())
    }
}
