//! A plugin that renders release announcements from a template and checks any announcement
//! against the format that `README.md` beside this crate describes.
//!
//! Invariant: what `render` answers passes `check`. Everything that lasts (the compiled
//! template) is made in `start`; calls keep nothing.
//!
//! Absent on purpose: threads, and dependencies with thread-locals that have destructors,
//! so that the plugin can really be unloaded; files other than the operator's template;
//! publishing (an announcement is bytes, where they go is not decided here).

#![forbid(unsafe_code)]

mod check;
mod config;
mod inline;
mod release;
mod template;

use std::fmt::Write as _;

use hotmerge_sdk::{Call, Error, Host, Plugin, Reply};

use crate::{check::Report, config::Config, release::Release, template::Template};

/// The most bytes that a request may have: an announcement is read by people, and a
/// changelog of decades stays below 1 MiB.
const REQUEST_LIMIT: usize = 1 << 20;

/// The plugin: a template that is ready to render.
#[derive(Debug)]
pub struct Announce {
    template: Template,
}

impl Plugin for Announce {
    fn start(_host: Host, config: &[u8]) -> Result<Self, Error> {
        let (origin, text) = Config::from_json(config)?.template()?;
        Ok(Self {
            template: Template::compile(origin, text)?,
        })
    }

    fn call(&self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
        match call.method() {
            "render" => {
                let markdown = self.render(limited(call.request())?)?;
                reply.content_type("text/markdown; charset=utf-8");
                reply.bytes(markdown.as_bytes())
            }
            "check" => {
                let report = Report::of(limited(call.request())?);
                reply.text(if report.ok { "ok\n" } else { "" })?;
                Ok(write!(reply, "{report}")?)
            }
            "check-json" => {
                let report = Report::of(limited(call.request())?);
                reply.content_type("application/json");
                serde_json::to_writer(&mut *reply, &report).map_err(|_| Error::ReplyTooLarge)?;
                reply.bytes(b"\n")
            }
            _ => Err(Error::NoMethod),
        }
    }
}

impl Announce {
    fn render(&self, request: &[u8]) -> Result<String, Error> {
        let release = Release::from_json(request)?;
        self.template.render(&release).map_err(Error::Failed)
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
