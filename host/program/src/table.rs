//! Tables for people: aligned columns, colours on a terminal only.

use std::io::IsTerminal;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use hotmerge_meta::{control::Problem, plain};

/// An empty table with a heading.
pub(crate) fn new(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(
            heading
                .iter()
                .map(|text| Cell::new(text).add_attribute(Attribute::Bold)),
        );
    if !std::io::stdout().is_terminal() || !colours_are_wanted() {
        table.force_no_tty();
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Whether the user has nothing against colours, where there can be any.
pub(crate) fn colours_are_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none()
}

/// The lines of a table without the blanks that its last column leaves.
pub(crate) fn text(table: &Table) -> String {
    let lines = table.lines();
    lines
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// The packages that cannot be used, a line each. A package's name is whatever somebody gave to
/// a directory, so control characters in it must not reach a terminal.
pub(crate) fn problems(problems: &[Problem]) -> String {
    let line = |Problem { package, reason }: &Problem| match package.as_str() {
        "" => format!("problem: {}\n", plain(reason)),
        package => format!("problem: {}: {}\n", plain(package), plain(reason)),
    };
    problems.iter().map(line).collect()
}

/// A cell in a colour of what it means. The text may be a plugin's.
pub(crate) fn coloured(text: impl ToString, meaning: Meaning) -> Cell {
    let cell = Cell::new(plain(&text.to_string()));
    match meaning {
        Meaning::Good => cell.fg(Color::Green),
        Meaning::Passing => cell.fg(Color::Yellow),
        Meaning::Bad => cell.fg(Color::Red),
        Meaning::Plain => cell,
    }
}

/// What a cell means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meaning {
    Good,
    Passing,
    Bad,
    Plain,
}
