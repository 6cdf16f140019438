//! `hotmerge-announce`: announcements for maintainers and CI, without a host.
//!
//! `release` writes what a release publishes, from one source: `ANNOUNCEMENT.md`, the news item
//! where an overlay wants it, and the feed's entry. `check` has exit codes and JSON for CI.

#![forbid(unsafe_code)]

mod documents;
mod output;

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use hotmerge_announcement::{
    Announcement, Choice, Format, Request, Templates, check, generate, news,
};
use serde_json::{Value, json};

/// A document breaks rules.
const VIOLATIONS: u8 = 1;
/// The command could not do its work. Of wrong usage too, as clap has it.
const FAILED: u8 = 2;

const HELP: &str = "Exit codes: 0 success, 1 `check` found violations, 2 failure";

/// Check announcements and generate them in every format
#[derive(Parser)]
#[command(name = "hotmerge-announce", version, after_help = HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(Check),
    Generate(Generate),
    Release(Release),
    Man(documents::Man),
    Completions(documents::Completions),
}

/// Check documents by the rules of their formats
#[derive(Args)]
struct Check {
    /// Files; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Media type of the documents [default: by the file's name, otherwise Markdown]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Where an announcement comes from
#[derive(Args)]
struct Source {
    /// File with the announcement (`.json`, `.toml`, `.md` for a changelog); `-` is standard input
    input: PathBuf,
    /// Media type of the input [default: by the file's name, otherwise JSON]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Directory with your own templates
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
}

/// Write an announcement in one format to standard output
#[derive(Args)]
struct Generate {
    #[command(flatten)]
    source: Source,
    /// Format: markdown, json, toml, protobuf, html, text, atom or news [default: the input's, otherwise markdown]
    #[arg(long)]
    format: Option<String>,
}

/// Write all that a release publishes: ANNOUNCEMENT.md, the news item and the feed's entry
#[derive(Args)]
struct Release {
    #[command(flatten)]
    source: Source,
    /// Directory for ANNOUNCEMENT.md and feed-entry.xml
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Root of the overlay that gets metadata/news/ID/ID.LANGUAGE.txt [default: no news item]
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Without it, only the exit status of a killed process would say what was wrong.
    let _ = output::outlive_size_limit();
    let code = match Arguments::try_parse() {
        Ok(arguments) => arguments.run(),
        Err(asked_or_wrong) => {
            output::keep(asked_or_wrong.print());
            if asked_or_wrong.use_stderr() {
                FAILED
            } else {
                0
            }
        }
    };
    match output::lost() {
        // If standard error is what failed, only the code says it.
        Some(error) if code == 0 => {
            output::complain(&format!(
                "hotmerge-announce: failed to write the result: {error}"
            ));
            FAILED.into()
        }
        _ => code.into(),
    }
}

impl Arguments {
    fn run(self) -> u8 {
        let done = match self.command {
            Command::Check(command) => command.run(),
            Command::Generate(command) => command.run(),
            Command::Release(command) => command.run(),
            Command::Man(command) => command.run(Self::command()),
            Command::Completions(command) => {
                command.run(Self::command());
                Ok(true)
            }
        };
        match done {
            Ok(true) => 0,
            Ok(false) => VIOLATIONS,
            Err(error) => {
                output::complain(&format!("hotmerge-announce: {error:#}"));
                FAILED
            }
        }
    }
}

impl Check {
    /// Whether all documents keep the rules.
    fn run(self) -> Result<bool> {
        let (mut all_ok, mut lines, mut files) = (true, String::new(), Vec::new());
        for file in &self.files {
            let content_type = self.content_type.clone().or_else(|| by_name(file));
            let report = check::Report::of_type(&read(file)?, content_type.as_deref())
                .with_context(|| format!("`{}`", file.display()))?;
            all_ok &= report.ok;
            for violation in &report.violations {
                lines.push_str(&format!("{}:{violation}\n", file.display()));
            }
            let mut object: Value = serde_json::to_value(&report)?;
            object["file"] = file.display().to_string().into();
            files.push(object);
        }
        let text = match self.json {
            true => format!("{}\n", json!({ "ok": all_ok, "files": files })),
            false => lines,
        };
        output::print(text.as_bytes());
        Ok(all_ok)
    }
}

impl Source {
    fn read(&self) -> Result<(Request, Templates)> {
        let mut templates = Templates::default();
        if let Some(directory) = &self.templates {
            let listed = templates_in(directory).with_context(|| {
                format!("failed to read the templates `{}`", directory.display())
            })?;
            templates.add_files(&listed)?;
        }
        let content_type = self.content_type.clone().or_else(|| by_name(&self.input));
        let request = Request::read(&read(&self.input)?, content_type.as_deref(), &templates)
            .with_context(|| format!("`{}`", self.input.display()))?;
        Ok((request, templates))
    }
}

fn templates_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(std::path::absolute(directory)?)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        bail!("it has no files `*.md`");
    }
    paths.sort();
    Ok(paths)
}

impl Generate {
    fn run(self) -> Result<bool> {
        let (request, templates) = self.source.read()?;
        let format = match &self.format {
            Some(name) => Format::of_name(name)?,
            None => request.format.unwrap_or(Format::Markdown),
        };
        let bytes = generate(&request.announcement, format, &templates)?;
        output::print(&bytes);
        Ok(true)
    }
}

impl Release {
    /// Generates everything before it writes anything.
    fn run(self) -> Result<bool> {
        let (request, templates) = self.source.read()?;
        let announcement = request.announcement;
        let make = |format| generate(&announcement, format, &templates);
        let mut files = vec![
            (self.out.join("ANNOUNCEMENT.md"), make(Format::Markdown)?),
            (self.out.join("feed-entry.xml"), make(Format::Atom)?),
        ];
        if let Some(overlay) = &self.overlay {
            files.push((news_path(overlay, &announcement)?, make(Format::News)?));
        }
        for (path, bytes) in files {
            write(&path, &bytes)?;
            output::print(format!("{}\n", path.display()).as_bytes());
        }
        Ok(true)
    }
}

fn news_path(overlay: &Path, announcement: &Announcement) -> Result<PathBuf> {
    if !overlay.join("profiles/repo_name").is_file() {
        bail!(
            "`{}` is not an overlay: it has no `profiles/repo_name`",
            overlay.display()
        );
    }
    let (id, file) = (news::id(announcement)?, news::file_name(announcement)?);
    Ok(overlay.join("metadata/news").join(id).join(file))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let context = || format!("failed to write `{}`", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(context)?;
    }
    fs::write(path, bytes).with_context(context)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let context = || format!("failed to read `{}`", path.display());
    if path.as_os_str() != "-" {
        return fs::read(path).with_context(context);
    }
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .with_context(context)?;
    Ok(bytes)
}

/// The media type by a file's name. A news item is `ID.LANGUAGE.txt` in a directory `ID`.
fn by_name(path: &Path) -> Option<String> {
    let format = match path.extension()?.to_str()? {
        "md" => Format::Markdown,
        "json" => Format::Json,
        "toml" => Format::Toml,
        "html" => Format::Html,
        "xml" | "atom" => Format::Atom,
        "txt" => {
            let name = path.file_name()?.to_str()?;
            let is_news = path.parent()?.file_name().is_some_and(|directory| {
                name.starts_with(&format!("{}.", directory.to_string_lossy()))
            });
            if !is_news {
                return Some(Choice::of(Format::Text).content_type.to_owned());
            }
            let news = Choice::of(Format::News).content_type;
            return Some(format!("{news}; name=\"{name}\""));
        }
        _ => return None,
    };
    Some(Choice::of(format).content_type.to_owned())
}
