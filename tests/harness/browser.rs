//! Debian's Chromium without a screen, steered through its WebDriver (W3C).
//!
//! Absent on purpose: what a page must show.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{Lab, Process, SOON};

/// What the browser must not use: networks other than loopback, and the machine's graphics.
const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
];

/// A browser with one page. It ends when dropped.
#[derive(Debug)]
pub struct Browser {
    agent: ureq::Agent,
    session: String,
    /// After the session: the driver ends the browser.
    _driver: Process,
}

impl Browser {
    /// Starts a browser whose files are in the test's own directory.
    ///
    /// # Panics
    /// If Debian's packages `chromium` and `chromium-driver` are missing.
    pub fn start(lab: &Lab, runs_scripts: bool) -> Self {
        let home = lab.path("browser");
        fs::create_dir_all(&home).expect("the test's own directory");
        let mut command = Command::new("chromedriver");
        command
            .arg("--port=0")
            .env("HOME", &home)
            .env("TMPDIR", &home)
            .env("XDG_CONFIG_HOME", &home)
            .env("XDG_CACHE_HOME", &home)
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut driver = Process::spawn(&mut command);
        let said = driver.child().stdout.take().expect("it is a pipe");
        let mut lines = BufReader::new(said).lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| {
                let port = line.split_once("successfully on port ")?.1;
                Some(port.trim_end_matches('.').to_owned())
            })
            .expect("the driver says where it listens");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(SOON * 2))
            .build();
        let agent: ureq::Agent = config.into();
        let sessions = format!("http://127.0.0.1:{port}/session");
        let wanted = wanted(&home.join("profile"), runs_scripts);
        let session = ask(&agent, &sessions, &wanted);
        let id = session["sessionId"].as_str().expect("it has a name");
        let browser = Self {
            session: format!("{sessions}/{id}"),
            agent,
            _driver: driver,
        };
        let ms = u64::try_from(SOON.as_millis()).expect("limits are short");
        browser.post("timeouts", &json!({ "script": ms, "pageLoad": ms }));
        browser
    }

    fn post(&self, what: &str, body: &Value) -> Value {
        ask(&self.agent, &format!("{}/{what}", self.session), body)
    }

    fn get(&self, what: &str) -> Value {
        let answer = self.agent.get(format!("{}/{what}", self.session)).call();
        value(what, answer)
    }

    /// Opens an address and waits until it has loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn read(&self, expression: &str) -> Value {
        let script = format!("return {expression}");
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression is true; it is evaluated whenever the page changes.
    #[track_caller]
    pub fn wait_for(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0]; \
             const look = () => {{ if ({expression}) {{ eyes.disconnect(); done(true); }} }}; \
             const eyes = new MutationObserver(look); \
             eyes.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }}); \
             look();"
        );
        self.post("execute/async", &json!({ "script": script, "args": [] }));
    }

    /// The text of the page as it is shown.
    #[track_caller]
    pub fn text(&self) -> String {
        let wanted = json!({ "using": "css selector", "value": "body" });
        let body = self.post("element", &wanted);
        let id = body.as_object().and_then(|it| it.values().next());
        let id = id.and_then(Value::as_str).expect("a page has a body");
        let text = self.get(&format!("element/{id}/text"));
        text.as_str().expect("it is a text").to_owned()
    }

    /// Sets the colour scheme that the browser prefers.
    #[track_caller]
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let command =
            json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.post("goog/cdp/execute", &command);
    }

    /// The messages in the browser's console since the last call.
    #[track_caller]
    pub fn console(&self) -> Vec<Value> {
        let said = self.post("se/log", &json!({ "type": "browser" }));
        said.as_array().expect("it is a list").clone()
    }

    /// Writes the page as a picture in the format PNG.
    #[track_caller]
    pub fn picture(&self, to: &Path) {
        let picture = self.get("screenshot");
        let picture = picture.as_str().expect("it is a text");
        let picture = STANDARD.decode(picture).expect("it is base64");
        fs::write(to, picture).expect("the picture can be written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without an answer there is no browser either.
        let _ = self.agent.delete(&self.session).call();
    }
}

fn wanted(profile: &Path, runs_scripts: bool) -> Value {
    let profile = format!("--user-data-dir={}", profile.display());
    let arguments: Vec<_> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
    let scripts = if runs_scripts { 1 } else { 2 };
    json!({ "capabilities": { "alwaysMatch": {
        "goog:loggingPrefs": { "browser": "ALL" },
        "goog:chromeOptions": {
            "args": arguments,
            "prefs": { "profile.managed_default_content_settings.javascript": scripts },
        },
    } } })
}

#[track_caller]
fn ask(agent: &ureq::Agent, url: &str, body: &Value) -> Value {
    value(url, agent.post(url).send(body.to_string()))
}

/// The value of an answer, which must be no error.
#[track_caller]
fn value(what: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let mut answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
    let text = answer
        .body_mut()
        .with_config()
        .limit(1 << 26)
        .read_to_string();
    let text = text.expect("the answer is whole");
    let mut answer: Value = serde_json::from_str(&text).expect("it is JSON");
    let value = answer["value"].take();
    assert!(value["error"].is_null(), "{what}: {value:#}");
    value
}
