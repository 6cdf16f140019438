//! A plugin's description of itself: its methods, as the JSON document that the contract defines.
//!
//! Absent on purpose: a JSON library, because every plugin would carry it. Schemas are text, which
//! the host reads.

use std::fmt::Write as _;

use crate::{Error, Reply};

/// One method of a plugin, for [`Plugin::describe`](crate::Plugin::describe).
///
/// ```
/// use hotmerge_sdk::Method;
///
/// const METHODS: &[Method] = &[Method::new("add", "Adds numbers")
///     .takes(&["application/json"])
///     .request_schema(r#"{"type":"array","items":{"type":"number"}}"#)
///     .replies(&["text/plain; charset=utf-8"])
///     .example("[1, 2]")];
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    pub(crate) name: &'static str,
    summary: &'static str,
    request: Payload,
    pub(crate) reply: Payload,
    pub(crate) example: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) content_types: &'static [&'static str],
    schema: &'static str,
}

impl Payload {
    const NONE: Self = Self {
        content_types: &[],
        schema: "",
    };
}

impl Method {
    /// A method, and what it does in one sentence.
    pub const fn new(name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            summary,
            request: Payload::NONE,
            reply: Payload::NONE,
            example: None,
        }
    }

    /// The media types of requests, the first of which is assumed if the caller names none. Without
    /// this the method takes an empty request, or says nothing of it.
    pub const fn takes(mut self, content_types: &'static [&'static str]) -> Self {
        self.request.content_types = content_types;
        self
    }

    /// The media types of replies, exactly as the plugin sets them; the first one answers a
    /// caller that accepts anything.
    pub const fn replies(mut self, content_types: &'static [&'static str]) -> Self {
        self.reply.content_types = content_types;
        self
    }

    /// The JSON schema of requests that are JSON.
    pub const fn request_schema(mut self, schema: &'static str) -> Self {
        self.request.schema = schema;
        self
    }

    /// The JSON schema of replies that are JSON.
    pub const fn reply_schema(mut self, schema: &'static str) -> Self {
        self.reply.schema = schema;
        self
    }

    /// A request of the first media type that succeeds.
    /// [`testing::Instance::check_description`](crate::testing::Instance::check_description) makes it.
    pub const fn example(mut self, request: &'static str) -> Self {
        self.example = Some(request);
        self
    }
}

/// Writes the contract's document.
pub(crate) fn write(methods: &[Method], reply: &mut Reply<'_>) -> Result<(), Error> {
    if methods.is_empty() {
        return Err(Error::Unsupported);
    }
    reply.content_type("application/json");
    write!(reply, "{{\"methods\":[")?;
    for (index, method) in methods.iter().enumerate() {
        if index > 0 {
            write!(reply, ",")?;
        }
        write!(reply, "{{\"name\":")?;
        string(method.name, reply)?;
        write!(reply, ",\"summary\":")?;
        string(method.summary, reply)?;
        write!(reply, ",\"request\":")?;
        payload(&method.request, reply)?;
        write!(reply, ",\"reply\":")?;
        payload(&method.reply, reply)?;
        if let Some(example) = method.example {
            write!(reply, ",\"example\":")?;
            string(example, reply)?;
        }
        write!(reply, "}}")?;
    }
    Ok(write!(reply, "]}}")?)
}

fn payload(payload: &Payload, reply: &mut Reply<'_>) -> Result<(), Error> {
    write!(reply, "{{\"content_types\":[")?;
    for (index, content_type) in payload.content_types.iter().enumerate() {
        if index > 0 {
            write!(reply, ",")?;
        }
        string(content_type, reply)?;
    }
    write!(reply, "]")?;
    if !payload.schema.is_empty() {
        write!(reply, ",\"schema\":")?;
        string(payload.schema, reply)?;
    }
    Ok(write!(reply, "}}")?)
}

/// A JSON string.
fn string(text: &str, reply: &mut Reply<'_>) -> Result<(), Error> {
    write!(reply, "\"")?;
    for sign in text.chars() {
        match sign {
            '"' | '\\' => write!(reply, "\\{sign}")?,
            sign if sign.is_control() => write!(reply, "\\u{:04x}", sign as u32)?,
            sign => write!(reply, "{sign}")?,
        }
    }
    Ok(write!(reply, "\"")?)
}
