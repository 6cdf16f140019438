//! The client against a host that answers, is silent, lies or goes away.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::Duration,
};

use hotmerge_meta::{
    Digest, RuntimeDir,
    control::{
        Action, CallParams, CallReply, Client, ClientError, ConnectError, PluginReport, Problem,
        ReloadParams, ReloadReport, code, method,
    },
    frame::MAX_FRAME_BYTES,
};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

/// A client whose host runs `serve` with the requests that arrive and a way to answer.
fn client(serve: impl FnOnce(Host) + Send + 'static) -> Client {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let requests = BufReader::new(theirs.try_clone().unwrap());
        serve(Host {
            requests,
            answers: theirs,
        });
    });
    Client::from_stream(ours)
}

struct Host {
    requests: BufReader<UnixStream>,
    answers: UnixStream,
}

impl Host {
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.requests.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn say(&mut self, text: &str) {
        self.answers.write_all(text.as_bytes()).unwrap();
        self.answers.write_all(b"\n").unwrap();
    }

    fn answer(&mut self, id: u64, result: Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string());
    }

    /// Until the client hangs up.
    fn wait(mut self) {
        let mut rest = String::new();
        while self.requests.read_line(&mut rest).is_ok_and(|len| len > 0) {}
    }
}

#[test]
fn a_request_gets_its_answer() {
    let mut client = client(|mut host| {
        assert_eq!(
            host.next(),
            json!({"jsonrpc": "2.0", "id": 1, "method": "position"})
        );
        host.answer(1, json!(17));
        let second = host.next();
        assert_eq!(
            second["params"],
            json!({"plugins": ["counter"], "retry": false})
        );
        host.answer(2, json!("two"));
    });
    let position: u64 = client.request(method::POSITION, &(), LONG).unwrap();
    assert_eq!(position, 17);
    let params = ReloadParams {
        plugins: Some(vec!["counter".parse().unwrap()]),
        ..ReloadParams::default()
    };
    let text: String = client.request(method::RELOAD, &params, LONG).unwrap();
    assert_eq!(text, "two");
}

#[test]
fn a_refusal_carries_its_code() {
    let mut client = client(|mut host| {
        host.next();
        host.say(
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no plugin `x` is active"}}"#,
        );
    });
    let error = client
        .request::<Value>(method::CALL, &(), LONG)
        .unwrap_err();
    assert_eq!(error.to_string(), "no plugin `x` is active");
    assert!(matches!(error, ClientError::Refused(error) if error.code() == code::NO_PLUGIN));
}

#[test]
fn an_error_without_a_request_id_is_accepted() {
    let mut client = client(|mut host| {
        host.next();
        host.say(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not JSON"}}"#);
    });
    let error = client
        .request::<Value>(method::STATUS, &(), LONG)
        .unwrap_err();
    assert_eq!(error.to_string(), "not JSON");
}

#[test]
fn an_unsolicited_refusal_reaches_the_client() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs
        .write_all(
            b"{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":10,\"message\":\"full\"}}\n",
        )
        .unwrap();
    drop(theirs);
    let error = Client::from_stream(ours)
        .request::<Value>(method::STATUS, &(), LONG)
        .unwrap_err();
    assert!(matches!(error, ClientError::Refused(error) if error.code() == code::BUSY));
}

#[test]
fn a_late_reply_never_answers_the_next_request() {
    let mut client = client(|mut host| {
        host.next();
        assert_eq!(host.next()["id"], 2);
        host.answer(1, json!("late"));
        host.answer(2, json!("in time"));
    });
    let error = client
        .request::<String>(method::STATUS, &(), SHORT)
        .unwrap_err();
    assert_eq!(error.to_string(), "the host did not answer within 20 ms");
    let answer: String = client.request(method::STATUS, &(), LONG).unwrap();
    assert_eq!(answer, "in time");
}

#[test]
fn a_closed_connection_differs_from_a_timeout() {
    let mut client = client(|mut host| drop(host.next()));
    let error = client
        .request::<Value>(method::STATUS, &(), LONG)
        .unwrap_err();
    assert!(matches!(error, ClientError::Closed), "{error}");
    let error = client
        .request::<Value>(method::STATUS, &(), LONG)
        .unwrap_err();
    assert!(matches!(error, ClientError::Closed), "{error}");
}

#[test]
fn a_malformed_reply_is_reported_as_malformed() {
    for nonsense in [
        "hello",
        "{}",
        r#"{"jsonrpc":"2.0","id":9,"result":1}"#,
        r#"{"jsonrpc":"2.0","id":"1","result":1}"#,
        r#"{"jsonrpc":"1.0","id":1,"result":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":"not a number"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        "[1, 2]",
        "\u{1}",
    ] {
        let mut client = client(move |mut host| {
            host.next();
            host.say(nonsense);
            host.wait();
        });
        let error = client
            .request::<u64>(method::STATUS, &(), LONG)
            .unwrap_err();
        assert!(
            matches!(error, ClientError::Nonsense { .. }),
            "{nonsense}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.starts_with("the host's answer to `status` is malformed: "),
            "{text}"
        );
    }
}

#[test]
fn an_endless_reply_is_cut_off() {
    let mut client = client(|mut host| {
        host.next();
        let some = vec![b'1'; 1 << 20];
        while host.answers.write_all(&some).is_ok() {}
    });
    let error = client
        .request::<Value>(method::STATUS, &(), LONG)
        .unwrap_err();
    assert!(matches!(error, ClientError::TooLong(_)), "{error}");
}

#[test]
fn an_oversized_request_is_not_sent() {
    let mut client = client(Host::wait);
    let long = "x".repeat(MAX_FRAME_BYTES);
    let error = client
        .request::<Value>(method::CALL, &[long], LONG)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "a frame is longer than 16777216 bytes; send less at once"
    );
}

#[test]
fn a_missing_host_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = RuntimeDir::new(dir.path());
    let sentence = format!(
        "no host is running in `{}`; start one with `hotmerge serve`",
        dir.path().display()
    );
    assert_eq!(Client::connect(&runtime).unwrap_err().to_string(), sentence);
    // What a host that crashed leaves.
    drop(UnixListener::bind(runtime.control_socket()).unwrap());
    assert_eq!(Client::connect(&runtime).unwrap_err().to_string(), sentence);

    let _listener = {
        std::fs::remove_file(runtime.control_socket()).unwrap();
        UnixListener::bind(runtime.control_socket()).unwrap()
    };
    Client::connect(&runtime).unwrap();
}

#[test]
fn a_long_runtime_path_is_reported() {
    let runtime = RuntimeDir::new(format!("/tmp/{}", "x".repeat(100)));
    let error = Client::connect(&runtime).unwrap_err();
    assert!(matches!(error, ConnectError::PathTooLong { .. }), "{error}");
}

#[test]
fn a_report_has_one_json_form() {
    let report = ReloadReport {
        plugins: vec![PluginReport {
            plugin: "counter".parse().unwrap(),
            action: Action::Reloaded,
            old_hash: None,
            hash: Some(Digest::of(b"abc")),
            version: Some("0.1.0".parse().unwrap()),
            generation: Some(2),
            reason: None,
            pause_ms: None,
            not_durable: None,
            took_ms: 1.5,
        }],
        problems: vec![Problem {
            package: "bad".to_owned(),
            reason: "it is a symlink".to_owned(),
        }],
        installed: 1,
        plugin_dir: "/var/lib/hotmerge".into(),
        took_ms: 2.0,
        config: None,
    };
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json,
        json!({
            "plugins": [{
                "plugin": "counter",
                "action": "reloaded",
                "hash": Digest::of(b"abc").to_string(),
                "version": "0.1.0",
                "generation": 2,
                "took_ms": 1.5,
            }],
            "problems": [{"package": "bad", "reason": "it is a symlink"}],
            "installed": 1,
            "plugin_dir": "/var/lib/hotmerge",
            "took_ms": 2.0,
        })
    );
    assert_eq!(
        serde_json::from_value::<ReloadReport>(json).unwrap(),
        report
    );
}

#[test]
fn a_call_has_one_json_form() {
    let json = json!({
        "plugin": "counter",
        "method": "add",
        "input_base64": "AP8=",
        "deadline_ms": 5,
        "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    });
    let params: CallParams = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(params.input_base64.0, [0, 255]);
    let trace = params.trace.unwrap();
    assert_eq!(
        (trace.trace_id[0], trace.span_id[7], trace.flags),
        (0x0a, 0x31, 1)
    );
    assert_eq!(serde_json::to_value(&params).unwrap(), json);

    let reply = CallReply {
        output_base64: b"hi".to_vec().into(),
        content_type: "text/plain".to_owned(),
        generation: 3,
        hash: Digest::of(b"abc"),
    };
    let json = serde_json::to_value(&reply).unwrap();
    assert_eq!(json["output_base64"], "aGk=");
    assert_eq!(serde_json::from_value::<CallReply>(json).unwrap(), reply);
}

#[test]
fn invalid_call_parameters_are_refused() {
    let refused = |change: Value| {
        let mut json = json!({"plugin": "counter", "method": "add"});
        for (key, value) in change.as_object().unwrap() {
            json[key] = value.clone();
        }
        serde_json::from_value::<CallParams>(json)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(json!({"plugin": "../x"})).contains("is not a plugin name"));
    assert!(refused(json!({"input_base64": "!"})).contains("Invalid"));
    assert!(refused(json!({"deadline": 5})).contains("unknown field `deadline`"));
    for trace in [
        "",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert!(
            refused(json!({"trace": trace})).contains("W3C traceparent"),
            "{trace}"
        );
    }
}
