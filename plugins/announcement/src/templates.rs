//! The templates by name and language: those that are shipped, and the operator's own, which take
//! precedence.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::{
    Announcement, Error, Release,
    template::{Kind, Template, values},
};

/// The most bytes that a template may have.
const LIMIT: u64 = 64 * 1024;

/// The most templates in a directory.
const MOST: usize = 256;

/// The template that gives an announcement in Markdown its shape; all others are for releases.
const MARKDOWN: &str = "markdown";

const SHIPPED: &[(&str, &str)] = &[
    ("release.en", include_str!("../templates/release.en.md")),
    ("release.zh", include_str!("../templates/release.zh.md")),
    ("go.en", include_str!("../templates/go.en.md")),
    ("go.zh", include_str!("../templates/go.zh.md")),
    ("markdown.en", include_str!("../templates/markdown.en.md")),
];

/// All templates, each of which has shown that it renders well-formed announcements.
#[derive(Debug, Default)]
pub struct Templates {
    own: BTreeMap<String, Template>,
    /// Those that are shipped, compiled when one is needed for the first time.
    shipped: [OnceLock<Template>; SHIPPED.len()],
}

impl Templates {
    /// The template for a release that names none.
    pub const RELEASE: &str = "release";

    /// Takes a template that is called `NAME` or `NAME.LANGUAGE`. `origin` says in messages where it
    /// comes from.
    ///
    /// # Errors
    /// What is wrong with it, with its line.
    pub fn add(&mut self, name: &str, origin: &str, text: String) -> Result<(), Error> {
        let template = Template::compile(origin, text, kind(name))?;
        self.own.insert(name.to_owned(), template);
        Ok(())
    }

    /// Takes files `NAME.md` and `NAME.LANGUAGE.md`. A list and not a directory: a plugin that may not read
    /// directories has no use for the code that does, and a sandbox would refuse it.
    ///
    /// # Errors
    /// Too many of them, and everything that is wrong with each.
    pub fn add_files(&mut self, paths: &[PathBuf]) -> Result<(), Error> {
        if paths.len() > MOST {
            let number = paths.len();
            return Err(Error::Failed(format!(
                "there are {number} templates; up to {MOST} are taken"
            )));
        }
        let mut problems = Vec::new();
        for path in paths {
            problems.extend(self.add_file(path).err().map(|error| error.to_string()));
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::Failed(problems.join("\n"))),
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let refuse = |reason: &str| {
            let path = path.display();
            Error::Failed(format!("failed to read the template `{path}`: {reason}"))
        };
        let name = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".md"))
            .ok_or_else(|| refuse("its name does not end in `.md`"))?;
        if self.own.contains_key(name) {
            return Err(refuse(&format!("there is another template `{name}`")));
        }
        self.add(name, &path.display().to_string(), read_file(path)?)
    }

    /// A release as Markdown.
    ///
    /// # Errors
    /// No such template, with the existing ones; or the template fails.
    pub fn render(&self, name: &str, language: &str, release: &Release) -> Result<String, Error> {
        if kind(name) != Kind::Release {
            return Err(Error::BadRequest(format!(
                "the template `{name}` is not for releases"
            )));
        }
        self.with(name, language, |template| {
            template.render(&release.to_value()).map_err(Error::Failed)
        })
    }

    /// An announcement as Markdown.
    ///
    /// # Errors
    /// If the template fails.
    pub(crate) fn markdown(&self, announcement: &Announcement) -> Result<String, Error> {
        self.with(MARKDOWN, &announcement.language, |template| {
            template
                .render(&values(announcement))
                .map_err(Error::BadRequest)
        })
    }

    fn shipped(&self, index: usize, kind: Kind) -> Result<&Template, Error> {
        let place = &self.shipped[index];
        if let Some(template) = place.get() {
            return Ok(template);
        }
        let (name, text) = SHIPPED[index];
        let origin = format!("shipped template `{name}`");
        let template = Template::compile(&origin, text.to_owned(), kind)?;
        // If another thread was faster, its template is the same.
        Ok(place.get_or_init(|| template))
    }

    /// The template of a name in a language, in its main language, in English, or in none.
    fn with<R>(
        &self,
        name: &str,
        language: &str,
        body: impl FnOnce(&Template) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let main = language.split(['-', '_']).next().unwrap_or_default();
        let candidates = [
            format!("{name}.{language}"),
            format!("{name}.{main}"),
            name.to_owned(),
            format!("{name}.en"),
        ];
        for candidate in &candidates {
            if let Some(template) = self.own.get(candidate) {
                return body(template);
            }
            if let Some(index) = SHIPPED.iter().position(|(shipped, _)| shipped == candidate) {
                return body(self.shipped(index, kind(name))?);
            }
        }
        let shipped = SHIPPED.iter().map(|(name, _)| *name);
        let mut names: Vec<_> = self.own.keys().map(String::as_str).chain(shipped).collect();
        names.sort_unstable();
        names.dedup();
        Err(Error::BadRequest(format!(
            "there is no template `{name}`; there are `{}`",
            names.join("`, `")
        )))
    }
}

fn kind(name: &str) -> Kind {
    match name.split('.').next() {
        Some(MARKDOWN) => Kind::Announcement,
        _ => Kind::Release,
    }
}

fn absolute(path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(
        "the path must be an absolute path, because the host's working directory is not the \
         operator's"
            .to_owned(),
    )
}

/// Reads a template from a regular file.
///
/// # Errors
/// Why it cannot be read, or that it is too large or not UTF-8.
pub fn read_file(path: &Path) -> Result<String, Error> {
    let refuse = |reason: String| {
        Error::Failed(format!(
            "failed to read the template `{}`: {reason}",
            path.display()
        ))
    };
    absolute(path).map_err(refuse)?;
    let kind = path.metadata().map_err(|error| refuse(error.to_string()))?;
    // Opening a FIFO would wait for a writer.
    if !kind.is_file() {
        return Err(refuse("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| refuse(error.to_string()))?;
    if bytes.len() as u64 > LIMIT {
        return Err(refuse(format!("it has more than {LIMIT} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        refuse(format!("line {line} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn a_shipped_template_is_compiled_once() {
        let templates = Templates::default();
        let address = || {
            templates
                .with("go", "en", |template| Ok(ptr::from_ref(template).addr()))
                .unwrap()
        };
        assert_eq!(address(), address());
    }
}
