//! The commands that a program's help lists, for tests that try every one.

/// The commands that a program's `--help` lists, in its order.
///
/// # Panics
/// If it lists none.
#[must_use]
pub fn commands_of(help: &str) -> Vec<&str> {
    let (_, rest) = help.split_once("Commands:\n").expect("it lists commands");
    let (commands, _) = rest.split_once("\n\n").expect("options follow");
    let lines = commands.lines().filter_map(|line| line.strip_prefix("  "));
    // The continuation of a description is indented further.
    let names = lines.filter(|line| !line.starts_with(' '));
    names.filter_map(|line| line.split(' ').next()).collect()
}
