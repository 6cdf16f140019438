//! Hostile HTTP from third parties: a public tool that holds connections open, and a public corpus of requests
//! that two HTTP parsers may understand differently. Other clients notice nothing.

use std::{io::Write as _, path::PathBuf, process::Command, thread};

use hotmerge_tests::{Ask, Http, Lab, SOON, Steady, actor, open_http, read_all, run, skipped};
use yaml_rust2::{Yaml, YamlLoader};

/// What `slowhttptest` can do, and where it does it.
const ATTACKS: [(&str, &[&str]); 4] = [
    ("slow heads", &["-H", "-u", "/plugins"]),
    (
        "slow bodies",
        &["-B", "-s", "65536", "-u", "/plugins/actor/echo"],
    ),
    (
        "slow readers",
        &[
            "-X",
            "-k",
            "5",
            "-w",
            "64",
            "-y",
            "512",
            "-u",
            "/openapi.json",
        ],
    ),
    ("ranges", &["-R", "-u", "/plugins"]),
];

/// More connections than there are places, for a few seconds, in all ways at once.
#[test]
fn slow_clients_of_a_public_tool_displace_nobody() {
    if Command::new("slowhttptest").arg("-h").output().is_err() {
        skipped("slowhttptest is not installed");
        return;
    }
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let limits = "max_connections = 256";
    let (host, http) = Http::start(&lab, &open_http(limits));
    let neighbours = Steady::start(http.address(), &[Ask::MARK; 2]);
    neighbours.go_on();
    let attacks: Vec<_> = ATTACKS.map(|attack| attack_with(&http, attack)).into();
    for attack in attacks {
        let (name, said) = attack.join().unwrap();
        neighbours.go_on();
        let available: Vec<_> = said.lines().filter_map(availability).collect();
        // At the beginning and, if the host has not got rid of it by then, after five seconds.
        assert!(
            !available.is_empty() && !available.contains(&"NO"),
            "{name}: {said}"
        );
    }
    assert_eq!(neighbours.renewed(), 0, "their connections are kept");
    neighbours.stop();
    let closed = host.status().host.door.expect("the door is counted").closed;
    assert!(closed > 0, "there were more connections than places");
    assert_eq!(host.text("actor", "mark"), "one");
    host.stop();
}

/// What a line in colours says of the host.
fn availability(line: &str) -> Option<&'static str> {
    let (_, said) = line.split_once("service available:")?;
    Some(if said.contains("YES") { "YES" } else { "NO" })
}

fn attack_with(
    http: &Http,
    (name, arguments): (&'static str, &'static [&'static str]),
) -> thread::JoinHandle<(&'static str, String)> {
    let mut command = Command::new("slowhttptest");
    command.args([
        "-c", "100", "-r", "50", "-i", "1", "-x", "24", "-l", "6", "-p", "2",
    ]);
    for argument in arguments {
        match argument.strip_prefix('/') {
            Some(_) => command.arg(http.url(argument)),
            None => command.arg(argument),
        };
    }
    thread::spawn(move || (name, run(&mut command, SOON).ok().text().to_owned()))
}

/// A request of the corpus.
struct Case {
    name: String,
    head: String,
    tier: String,
}

/// The requests of `http_desync_guardian`, which come with its sources.
fn corpus() -> Vec<Case> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(hotmerge_tests::repository().join("Cargo.toml"))
        .exec()
        .unwrap();
    let found = metadata
        .packages
        .iter()
        .find(|it| it.name.as_str() == "http_desync_guardian");
    let manifest = PathBuf::from(&found.expect("it is locked").manifest_path);
    let mut cases = Vec::new();
    for name in [
        "acceptable",
        "ambiguous",
        "bad-header-characters",
        "edge-cases",
        "more-compliant-tests",
        "real-life-test-cases",
        "rfc-compliant",
        "severe",
        "uri-specific-test-cases",
    ] {
        let file = manifest
            .with_file_name("tests")
            .join(format!("{name}.yaml"));
        let text = std::fs::read_to_string(file).unwrap();
        for document in YamlLoader::load_from_str(&text).unwrap() {
            cases.extend(document.into_iter().map(|case| Case::read(&case)));
        }
    }
    cases
}

impl Case {
    fn read(case: &Yaml) -> Self {
        let text = |yaml: &Yaml| match yaml {
            Yaml::String(text) | Yaml::Real(text) => text.clone(),
            Yaml::Integer(number) => number.to_string(),
            _ => String::new(),
        };
        // What has no meaning there reaches the plugin, which reads bodies.
        let uri = match text(&case["uri"]).as_str() {
            "/foo/bar" | "/" => "/plugins/actor/echo".to_owned(),
            other => other.to_owned(),
        };
        let (method, version) = (text(&case["method"]), text(&case["version"]));
        let mut head = format!("{method} {uri} {version}\r\n");
        let headers = case["headers"]
            .as_vec()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let names = |it: &Yaml| text(&it["name"]).eq_ignore_ascii_case("host");
        if !headers.iter().any(names) {
            head += "host: localhost\r\n";
        }
        for header in headers {
            head += &format!("{}: {}\r\n", text(&header["name"]), text(&header["value"]));
        }
        Self {
            name: text(&case["name"]),
            head: head + "\r\n",
            tier: text(&case["expected"]["tier"]),
        }
    }
}

#[test]
fn ambiguous_requests_of_a_public_corpus_hide_none() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let (host, http) = Http::start(&lab, &open_http("header_ms = 200\nbody_ms = 200"));
    let (mut seen, mut wrong) = (0, Vec::new());
    for case in corpus() {
        let mut stream = http.send(case.head.as_bytes());
        // The end of a body in chunks, and what one reader takes for a body and another for a request.
        let hidden =
            "0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(hidden.as_bytes());
        let said = read_all(stream);
        let is_found = said.ends_with("ok\n");
        let is_refused =
            said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.0 4");
        let is_right = match case.tier.as_str() {
            // A length that is said twice is one length (RFC 9110, 8.6).
            _ if case.name == "Two Identical Fields - CL" => true,
            "Severe" => is_refused && !is_found,
            "Ambiguous" => !is_found,
            _ => true,
        };
        seen += 1;
        if !is_right {
            wrong.push(format!(
                "{} ({}): {:?}\n  {said:?}",
                case.name, case.tier, case.head
            ));
        }
    }
    assert!(seen > 100, "the corpus has only {seen} requests");
    assert!(
        wrong.is_empty(),
        "{} of {seen}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(host.text("actor", "mark"), "one");
}
