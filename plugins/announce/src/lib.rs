//! A plugin that generates announcements in every format, and checks any announcement by the rules
//! that `README.md` beside this crate describes.
//!
//! Invariant: what `generate` and `render` answer passes `check`. Everything that lasts (the operator's
//! templates) is made in `start`; calls keep nothing.
//!
//! Absent on purpose: the formats and the rules themselves (`hotmerge-announcement` has them), threads,
//! files other than the operator's templates, publishing (an announcement is bytes, where they go is
//! not decided here).

#![forbid(unsafe_code)]

mod config;
mod methods;

use std::fmt::Write as _;

use hotmerge_announcement::{
    self as announcement, Choice, Format, Release, Request, Templates, check,
};
use hotmerge_sdk::{Call, Error, Host, Method, Plugin, Reply};

use crate::config::Config;

/// The most bytes that a request of `render` and `check` may have: an announcement is read by people,
/// and a changelog of decades stays below 1 MiB.
const REQUEST_LIMIT: usize = 1 << 20;

/// The plugin: templates that are ready to render.
#[derive(Debug)]
pub struct Announce {
    templates: Templates,
}

impl Plugin for Announce {
    fn start(_host: Host, config: &[u8]) -> Result<Self, Error> {
        let config = Config::from_json(config).map_err(own)?;
        Ok(Self {
            templates: config.templates().map_err(own)?,
        })
    }

    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        match call.method() {
            "generate" => self.generate(call, reply),
            "render" => self.render(call, reply),
            "check" => {
                let choice = choose(call, &[Format::Text, Format::Json])?;
                check_as(choice, call, reply)
            }
            "check-json" => check_as(choose(call, &[Format::Json])?, call, reply),
            _ => Err(Error::NoMethod),
        }
    }

    fn describe(&self) -> &[Method] {
        methods::METHODS
    }
}

impl Announce {
    fn generate(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        let accepted = call.accept().map(Choice::accepted).transpose();
        let request = Request::read(call.request(), call.content_type(), &self.templates);
        let request = request.map_err(own)?;
        // The author's word counts more than what a program accepts by habit.
        let choice = match (request.format, accepted) {
            (Some(format), _) => Choice::of(format),
            (None, accepted) => accepted
                .map_err(own)?
                .unwrap_or_else(|| Choice::of(Format::Markdown)),
        };
        let bytes = announcement::generate(&request.announcement, choice.format, &self.templates);
        let bytes = bytes.map_err(own)?;
        reply.content_type(choice.content_type);
        reply.bytes(&bytes)
    }

    fn render(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        let choice = choose(call, &[Format::Markdown])?;
        let release = Release::from_json(limited(call.request())?).map_err(own)?;
        let markdown = self.templates.render(Templates::RELEASE, "en", &release);
        reply.content_type(choice.content_type);
        reply.bytes(markdown.map_err(own)?.as_bytes())
    }
}

fn check_as(choice: Choice, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
    let report = check::Report::of_type(limited(call.request())?, call.content_type());
    let report = report.map_err(own)?;
    reply.content_type(choice.content_type);
    if choice.format == Format::Json {
        serde_json::to_writer(&mut *reply, &report).map_err(|_| Error::ReplyTooLarge)?;
        return reply.bytes(b"\n");
    }
    reply.bytes(if report.ok { b"ok\n" } else { b"" })?;
    Ok(write!(reply, "{report}")?)
}

/// The format that the caller accepts of those that a method has; the first if it accepts any.
fn choose(call: &Call<'_>, formats: &[Format]) -> Result<Choice, Error> {
    match call.accept() {
        Some(accept) => Choice::accepted_of(accept, formats).map_err(own),
        None => Ok(Choice::of(formats[0])),
    }
}

fn own(error: announcement::Error) -> Error {
    match error {
        announcement::Error::BadRequest(reason) => Error::BadRequest(reason),
        announcement::Error::NotAcceptable(reason) => Error::NotAcceptable(reason),
        announcement::Error::UnsupportedMedia(reason) => Error::UnsupportedMedia(reason),
        announcement::Error::Failed(reason) => Error::Failed(reason),
    }
}

fn limited(request: &[u8]) -> Result<&[u8], Error> {
    if request.len() > REQUEST_LIMIT {
        return Err(Error::bad_request(format!(
            "the request has {} bytes, the limit is {REQUEST_LIMIT}: shorten or split the document",
            request.len()
        )));
    }
    Ok(request)
}

hotmerge_sdk::export_plugin!(Announce);

#[cfg(test)]
mod tests;
