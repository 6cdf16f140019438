//! Metrics can be scraped by clients with the role, and stay small.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use hotmerge_tests::{
    Gate, Http, Lab, Process, SOON, TestHost, actor, call, closed_http, hotmerge_metrics,
    open_http, prometheus, repository, run,
};
use serde_json::Value;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const SECRET: &str = "a secret of sixteen characters or more";

/// A host with the actor in a worker, from which anybody may read.
fn observed(lab: &Lab, more: &str) -> (TestHost, Http) {
    lab.put(&actor("mark=one"));
    let config = lab.living_in("process") + &open_http("") + more;
    Http::start(lab, &config)
}

/// A scrape in the format that is made for people.
#[track_caller]
fn scrape(http: &Http) -> String {
    let answer = http.get("/metrics");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some(TEXT)),
        "{answer:?}"
    );
    String::from_utf8(answer.body).unwrap()
}

/// The value of a series, `name{labels}` as in the text.
fn value(text: &str, series: &str) -> Option<f64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().unwrap())
}

/// Waits until a series has a value.
#[track_caller]
fn wait_for(host: &TestHost, http: &Http, series: &str, wanted: f64) {
    let what = format!("`{series}` is {wanted}");
    host.wait_for(&what, |_| {
        (value(&scrape(http), series) == Some(wanted)).then_some(())
    });
}

/// How many series there are.
fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[test]
fn a_scrape_shows_what_happened() {
    let lab = Lab::new();
    let (host, http) = observed(&lab, "");
    for _ in 0..3 {
        host.text("actor", "mark");
    }
    host.call("actor", "fail", b"").unwrap_err();
    host.call("actor", "nothing", b"").unwrap_err();
    let text = scrape(&http);
    for (series, wanted) in [
        (
            r#"hotmerge_calls_total{plugin="actor",outcome="answered"}"#,
            3.0,
        ),
        (
            r#"hotmerge_calls_total{plugin="actor",outcome="refused"}"#,
            1.0,
        ),
        (
            r#"hotmerge_calls_total{plugin="actor",outcome="no_method"}"#,
            1.0,
        ),
        (r#"hotmerge_calls_in_flight{plugin="actor"}"#, 0.0),
        (
            r#"hotmerge_reloads_total{outcome="loaded",cause="changed"}"#,
            1.0,
        ),
        (r#"hotmerge_plugin_live{plugin="actor"}"#, 1.0),
        (r#"hotmerge_plugin_generation{plugin="actor"}"#, 1.0),
        (r#"hotmerge_plugin_crashes_total{plugin="actor"}"#, 0.0),
        (
            r#"hotmerge_log_records_dropped_total{sink="stderr",source="host"}"#,
            0.0,
        ),
        ("hotmerge_replies_given_up_total", 0.0),
    ] {
        assert_eq!(value(&text, series), Some(wanted), "{series} in {text}");
    }
    for at_least in [
        r#"hotmerge_call_duration_seconds_count{plugin="actor"}"#,
        r#"hotmerge_call_duration_seconds_sum{plugin="actor"}"#,
        r#"hotmerge_worker_memory_bytes{plugin="actor"}"#,
        "hotmerge_start_time_seconds",
        "hotmerge_door_requests_total",
        r#"hotmerge_looks_total{kind="full"}"#,
    ] {
        let value = value(&text, at_least);
        assert!(value.is_some_and(|it| it > 0.0), "{at_least} in {text}");
    }
    assert!(text.contains("hotmerge_build_info{version="), "{text}");
    assert!(
        text.contains(
            r#"hotmerge_plugin_info{plugin="actor",version="1.0.0",isolation="process"} 1"#
        ),
        "{text}"
    );
}

#[test]
fn each_scraper_gets_its_format() {
    let lab = Lab::new();
    let (_host, http) = observed(&lab, "");
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = http.get_with("/metrics", &[("accept", accept)]);
    assert_eq!(answer.header("content-type"), Some(OPEN_METRICS));
    assert_eq!(answer.header("vary"), Some("accept"));
    let open = String::from_utf8(answer.body).unwrap();
    assert!(open.ends_with("\n# EOF\n"), "{open}");
    assert!(open.contains("# TYPE hotmerge_calls counter\n"), "{open}");
    let text = scrape(&http);
    assert!(!text.contains("# EOF"), "{text}");
    assert!(
        text.contains("# TYPE hotmerge_calls_total counter\n"),
        "{text}"
    );
}

#[test]
fn metrics_need_the_role_read() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let other = SECRET.replace('a', "b");
    let tokens = lab.tokens(&[("scraper", SECRET), ("shop", &other)]);
    let config = format!(
        "[[door.allow]]\ntoken = \"scraper\"\nrole = \"read\"\n\
         [[door.allow]]\ntoken = \"shop\"\nrole = \"call\"\n{}",
        closed_http(&tokens)
    );
    let (_host, http) = Http::start(&lab, &config);
    let refused = |http: &Http| {
        let answer = http.get("/metrics");
        (answer.status, answer.problem())
    };
    assert_eq!(refused(&http), (401, "unauthenticated".to_owned()));
    let shop = http.with_token(&other);
    assert_eq!(refused(&shop), (403, "forbidden".to_owned()));
    assert!(series(&scrape(&http.with_token(SECRET))) > 50);
}

#[test]
fn ten_thousand_method_names_add_no_series() {
    let lab = Lab::new();
    let (host, http) = observed(&lab, "");
    let mut client = host.client();
    let unknown = |client: &mut _| {
        let name: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(12)
            .collect();
        call(client, "actor", &format!("no-{name}"), b"").unwrap_err();
    };
    unknown(&mut client);
    let before = series(&scrape(&http));
    for _ in 1..10_000 {
        unknown(&mut client);
    }
    // Of a plugin that there is not, nobody keeps anything.
    for _ in 0..100 {
        let name: String = std::iter::repeat_with(fastrand::lowercase)
            .take(12)
            .collect();
        call(&mut client, &name, "mark", b"").unwrap_err();
    }
    let text = scrape(&http);
    assert_eq!(series(&text), before, "{text}");
    let counted = r#"hotmerge_calls_total{plugin="actor",outcome="no_method"}"#;
    assert_eq!(value(&text, counted), Some(10_000.0), "{text}");
}

#[test]
fn a_running_call_is_in_flight() {
    let lab = Lab::new();
    let gate = Gate::new(&lab);
    let (host, http) = observed(&lab, &gate.config_in_worker("actor"));
    let waiting = host.in_background(|client| call(client, "actor", "wait", b""));
    let visitor = gate.visitor();
    let in_flight = r#"hotmerge_calls_in_flight{plugin="actor"}"#;
    assert_eq!(value(&scrape(&http), in_flight), Some(1.0));
    visitor.let_go();
    waiting.join().unwrap().unwrap();
    assert_eq!(value(&scrape(&http), in_flight), Some(0.0));
}

#[test]
fn reloads_are_counted_by_outcome_and_cause() {
    let lab = Lab::new();
    let (host, http) = observed(&lab, "");
    host.text("actor", "mark");
    host.reload_after(|| lab.put(&actor("mark=two").version("1.1.0")));
    host.reload_after(|| lab.put(&actor("mark=three start=refuse").version("1.2.0")));
    lab.hotmerge(["rollback", "actor"]).ok();
    let text = scrape(&http);
    for (outcome, cause) in [
        ("loaded", "changed"),
        ("reloaded", "changed"),
        ("refused", "changed"),
        ("reloaded", "chosen"),
    ] {
        let series = format!(r#"hotmerge_reloads_total{{outcome="{outcome}",cause="{cause}"}}"#);
        assert_eq!(value(&text, &series), Some(1.0), "{series} in {text}");
    }
    assert_eq!(
        value(&text, "hotmerge_reload_duration_seconds_count"),
        Some(3.0)
    );
    // Counters of calls outlast versions.
    let answered = r#"hotmerge_calls_total{plugin="actor",outcome="answered"}"#;
    assert_eq!(value(&text, answered), Some(1.0), "{text}");
    wait_for(&host, &http, "hotmerge_drain_duration_seconds_count", 2.0);
    // What is gone has no series; what happened stays counted.
    host.reload_after(|| fs::remove_dir_all(lab.plugin_dir().join("actor")).unwrap());
    host.wait_for("it is gone", |status| {
        status.plugins.is_empty().then_some(())
    });
    let text = scrape(&http);
    assert!(!text.contains("plugin=\"actor\""), "{text}");
    let removed = r#"hotmerge_reloads_total{outcome="removed",cause="changed"}"#;
    assert_eq!(value(&text, removed), Some(1.0), "{text}");
}

#[test]
fn a_handover_has_its_pause_measured() {
    let lab = Lab::new();
    lab.put(&actor("mark=one state=8"));
    let config = lab.living_in("process") + &open_http("");
    let (host, http) = Http::start(&lab, &config);
    host.count("actor");
    host.reload_after(|| lab.put(&actor("mark=two state=8").version("1.1.0")));
    assert_eq!(host.count("actor"), 2, "it took the state over");
    let text = scrape(&http);
    assert_eq!(
        value(&text, "hotmerge_switch_pause_seconds_count"),
        Some(1.0),
        "{text}"
    );
}

#[test]
fn crashes_and_restarts_are_counted() {
    let lab = Lab::new();
    let (host, http) = observed(&lab, "");
    host.call("actor", "panic", b"").unwrap_err();
    wait_for(
        &host,
        &http,
        r#"hotmerge_plugin_restarts_total{plugin="actor"}"#,
        1.0,
    );
    let text = scrape(&http);
    for series in [
        r#"hotmerge_plugin_crashes_total{plugin="actor"}"#,
        r#"hotmerge_calls_total{plugin="actor",outcome="panicked"}"#,
    ] {
        assert_eq!(value(&text, series), Some(1.0), "{series} in {text}");
    }
}

/// Has promtool judge what is in a file or comes on standard input.
#[track_caller]
fn promtool<'a>(arguments: impl IntoIterator<Item = &'a str>, input: &str) {
    let mut promtool = prometheus("promtool");
    promtool
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{promtool:?}: {said}\n{input}");
}

#[test]
fn promtool_finds_no_fault() {
    let lab = Lab::new();
    let (host, http) = observed(&lab, "");
    host.text("actor", "mark");
    promtool(["check", "metrics"], &scrape(&http));
    let rules = repository().join("scripts/prometheus/hotmerge.rules.yml");
    promtool(["check", "rules", rules.to_str().unwrap()], "");
}

/// Every query of the dashboard, as an instance of Prometheus gets it.
fn dashboard() -> Vec<String> {
    let path = repository().join("scripts/prometheus/grafana.json");
    let dashboard: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            queries.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    let annotation = &dashboard["annotations"]["list"][0]["expr"];
    queries.push(annotation.as_str().unwrap().to_owned());
    let filled = queries.into_iter().map(|query| {
        query
            .replace("$__rate_interval", "5m")
            .replace("$instance", ".*")
            .replace("$plugin", ".*")
    });
    filled.collect()
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let lab = Lab::new();
    let (host, http) = observed(&lab, "");
    host.text("actor", "mark");
    let text = scrape(&http);
    let known: BTreeSet<&str> = hotmerge_metrics(&text).collect();
    let rules = repository().join("scripts/prometheus/hotmerge.rules.yml");
    let rules = fs::read_to_string(rules).unwrap();
    let queries = dashboard();
    assert!(queries.len() > 15, "{queries:?}");
    let named = queries.iter().flat_map(|query| hotmerge_metrics(query));
    for name in named.chain(hotmerge_metrics(&rules)) {
        assert!(known.contains(name), "no scrape has `{name}`");
    }
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    for name in hotmerge_metrics(&readme) {
        assert!(
            known.contains(name),
            "no scrape has `{name}`, which the README names"
        );
    }
}

/// Prometheus on a free port, which scrapes a host by token.
struct Scraper {
    _process: Process,
    http: Http,
}

impl Scraper {
    fn start(dir: &Path, target: &Http, token: &str) -> Self {
        let rules = repository().join("scripts/prometheus/hotmerge.rules.yml");
        let config = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n\
             rule_files: [\"{}\"]\n\
             scrape_configs:\n  - job_name: hotmerge\n    authorization:\n      credentials: \"{token}\"\n\
             \x20   static_configs:\n      - targets: [\"{}\"]\n",
            rules.display(),
            target.address()
        );
        let file = dir.join("prometheus.yml");
        fs::write(&file, config).unwrap();
        run(
            prometheus("promtool").args(["check", "config"]).arg(&file),
            SOON,
        )
        .ok();
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .unwrap();
        let mut command: Command = prometheus("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            _process: Process::spawn(&mut command),
            http: Http::at(address),
        }
    }

    /// The results of a query by their labels, once it answers at all.
    fn query(&self, query: &str) -> Option<BTreeMap<String, f64>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self
            .http
            .try_get(&format!("/api/v1/query?query={encoded}"))?;
        if answer.status == 503 {
            // It is not ready.
            return None;
        }
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        let answer = answer.json();
        let results = answer["data"]["result"].as_array()?.iter();
        let value = |it: &Value| it["value"][1].as_str().unwrap().parse().unwrap();
        Some(
            results
                .map(|it| (it["metric"].to_string(), value(it)))
                .collect(),
        )
    }
}

#[test]
fn prometheus_scrapes_a_host_and_runs_its_queries() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let tokens = lab.tokens(&[("scraper", SECRET)]);
    let config = lab.living_in("process")
        + "[[door.allow]]\ntoken = \"scraper\"\nrole = \"read\"\n"
        + &closed_http(&tokens);
    let (host, http) = Http::start(&lab, &config);
    host.text("actor", "mark");
    let scraper = Scraper::start(&lab.path(""), &http, SECRET);
    host.wait_for("Prometheus has scraped the host", |_| {
        let calls = r#"hotmerge_calls_total{plugin="actor",outcome="answered"}"#;
        let results = scraper.query(calls)?;
        results.values().any(|count| *count == 1.0).then_some(())
    });
    let up = scraper.query("up{job=\"hotmerge\"} == 1").unwrap();
    assert_eq!(up.len(), 1);
    for query in dashboard() {
        assert!(scraper.query(&query).is_some(), "{query}");
    }
    let alerts = scraper.query("ALERTS").unwrap();
    assert!(alerts.is_empty(), "{alerts:?}");
}
