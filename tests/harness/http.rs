//! HTTP clients of a host under test.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
};

use serde_json::Value;

use crate::{Lab, SOON, TestHost, keep_one_heap};

/// The HTTP front of a running host, and a client with connections that are kept.
#[derive(Clone, Debug)]
pub struct Http {
    address: SocketAddr,
    agent: ureq::Agent,
    token: Option<String>,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Lines of configuration for a front on a free port that anybody may read from and call through,
/// with further lines for the section `http`.
pub fn open_http(more: &str) -> String {
    format!(
        "[[door.allow]]\nanybody = true\nrole = \"read\"\n\
         [[door.allow]]\nanybody = true\nrole = \"call\"\n{}",
        closed_http(more)
    )
}

/// Lines of configuration for a front on a free port that nobody may use but by other lines.
pub fn closed_http(more: &str) -> String {
    format!("[http]\nlisten = [\"tcp:127.0.0.1:0\"]\n{more}\n")
}

impl Lab {
    /// Writes a file of tokens, names and secrets, and returns the line of the section `http` that names it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn tokens(&self, tokens: &[(&str, &str)]) -> String {
        let path = self.path("tokens.toml");
        let lines = tokens
            .iter()
            .map(|(name, secret)| format!("{name} = \"{secret}\"\n"));
        fs::write(&path, lines.collect::<String>()).expect("the test's own directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is the test's");
        format!("tokens = \"{}\"", path.display())
    }
}

impl Http {
    /// Starts a host with these lines of configuration and finds its front.
    #[track_caller]
    pub fn start(lab: &Lab, config: &str) -> (TestHost, Self) {
        let mut serve = lab.serve(config);
        keep_one_heap(&mut serve);
        let host = lab.start_by(serve);
        let http = Self::of(&host);
        (host, http)
    }

    /// The front of a running host, as its log names it.
    ///
    /// # Panics
    /// If it has none on TCP.
    #[track_caller]
    pub fn of(host: &TestHost) -> Self {
        let record = host.log().wait("the HTTP front listens");
        let place = record["place"].as_str().expect("it says where");
        let address = place.strip_prefix("tcp:").expect("it is a port");
        Self::at(address.parse().expect("it is an address"))
    }

    /// A front at an address.
    pub fn at(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(SOON))
            .build();
        Self {
            address,
            agent: config.into(),
            token: None,
        }
    }

    /// The same front, for the holder of a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An address below it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Gets something.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[])
    }

    /// As [`Http::get`], with headers.
    #[track_caller]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.get(self.url(path));
        for (name, value) in self.headers(headers) {
            request = request.header(name, value);
        }
        Answer::read(request.call().expect("the host answers"))
    }

    /// As [`Http::get`], if somebody listens there.
    pub fn try_get(&self, path: &str) -> Option<Answer> {
        self.agent.get(self.url(path)).call().ok().map(Answer::read)
    }

    /// Posts something.
    #[track_caller]
    pub fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.post_with(path, &[], body)
    }

    /// As [`Http::post`], with headers.
    #[track_caller]
    pub fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = self.try_post(path, headers, body);
        answer.expect("the host answers")
    }

    /// As [`Http::post_with`], if there is an answer.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(self.url(path));
        for (name, value) in self.headers(headers) {
            request = request.header(name, value);
        }
        request.send(body).map(Answer::read)
    }

    fn headers<'a>(&self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, String)> {
        let bearer = self
            .token
            .as_ref()
            .map(|token| ("authorization", format!("Bearer {token}")));
        let more = more
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        more.chain(bearer).collect()
    }

    /// A bare connection on which these bytes were sent.
    #[track_caller]
    pub fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("it is not zero");
        stream.write_all(bytes).expect("somebody reads it");
        stream
    }

    /// Everything that comes for these bytes until the host closes the connection.
    #[track_caller]
    pub fn exchange(&self, bytes: &[u8]) -> String {
        read_all(self.send(bytes))
    }
}

/// Reads until the other side closes.
#[track_caller]
pub fn read_all(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    // A reset after the last byte is an end too.
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("the host keeps the connection open")
        }
        _ => String::from_utf8_lossy(&all).into_owned(),
    }
}

impl Answer {
    fn read(response: ureq::http::Response<ureq::Body>) -> Self {
        let (head, mut body) = response.into_parts();
        let headers = head.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), value.into_owned())
        });
        Self {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body: body
                .with_config()
                .limit(1 << 30)
                .read_to_vec()
                .expect("the body is whole"),
        }
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("it is JSON")
    }

    /// The kind of problem, which the answer must be.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        let kind = problem["type"].as_str().unwrap_or_default();
        kind.trim_start_matches("/problems/").to_owned()
    }
}
