//! An HTTP client with one connection, which it keeps: a library's would make another one in silence.
//!
//! Absent on purpose: chunks, which the host never sends, and answers without a length.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::{Answer, SOON};

/// A connection, and whether it has been of use.
#[derive(Debug)]
pub struct Kept {
    stream: BufReader<TcpStream>,
    answers: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The host closed a connection between two requests, as it may: the request was not read.
    Closed,
    /// It was cut off, or never let in.
    Failed(io::Error),
}

impl Kept {
    /// Connects.
    ///
    /// # Errors
    /// If it is refused.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(Self {
            stream: BufReader::new(stream),
            answers: 0,
        })
    }

    /// Posts something and reads the answer.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Unanswered> {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let mut request = (request + "\r\n").into_bytes();
        request.extend(body);
        let begun =
            (self.stream.get_mut().write_all(&request)).and_then(|()| self.stream.fill_buf());
        match begun {
            Ok([]) if self.answers > 0 => return Err(Unanswered::Closed),
            Ok(_) => {}
            Err(error) if self.answers > 0 && error.kind() != io::ErrorKind::WouldBlock => {
                return Err(Unanswered::Closed);
            }
            Err(error) => return Err(Unanswered::Failed(error)),
        }
        let answer = self.read().map_err(Unanswered::Failed)?;
        self.answers += 1;
        Ok(answer)
    }

    fn read(&mut self) -> io::Result<Answer> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.ok_or_else(|| bad(&first))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").ok_or_else(|| bad(&line))?;
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, text)| text.parse().ok());
        let mut body = vec![0; length.ok_or_else(|| bad("no length"))?];
        self.stream.read_exact(&mut body)?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}
