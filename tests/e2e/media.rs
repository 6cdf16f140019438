//! What a call passes besides its bytes: media types both ways, and a plugin's description; in the
//! host's process and in a worker, also with plugins that support neither.

use hotmerge_meta::{
    OnReplace, PluginName,
    control::{CallParams, CallReply, ClientError, Description, PluginParams, code, method},
};
use hotmerge_tests::{Lab, SOON, TestHost, Variant, actor, call_params};

/// Runs a test with the plugin in the host's process, and in a worker where there are any.
fn both(plugin: &Variant, test: impl Fn(&TestHost)) {
    let lab = Lab::new();
    lab.put(plugin);
    let host = lab.start_with("watch = false\n");
    test(&host);
    host.stop();
    if let Some(host) = lab.start_sandboxed("watch = false\n") {
        test(&host);
        host.stop();
    }
}

fn call(host: &TestHost, name: &str, sent: &str, wanted: &str) -> Result<CallReply, ClientError> {
    let params = CallParams {
        content_type: sent.to_owned(),
        accept: wanted.to_owned(),
        ..call_params("actor", name, b"")
    };
    host.client().request(method::CALL, &params, SOON)
}

fn described(host: &TestHost) -> Result<Description, ClientError> {
    let plugin: PluginName = "actor".parse().unwrap();
    let params = PluginParams { plugin };
    host.client().request(method::DESCRIBE, &params, SOON)
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> (i32, String) {
    match outcome {
        Err(ClientError::Refused(error)) => (error.code(), error.message().to_owned()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn media_types_reach_the_plugin_and_return() {
    both(&actor("mark=1"), |host| {
        let reply = call(host, "media", "a/b; c=\"é\"", "x/y;q=0.5, */*").unwrap();
        let text = String::from_utf8(reply.output_base64.0).unwrap();
        assert_eq!(text, r#"Some("a/b; c=\"é\"") Some("x/y;q=0.5, */*")"#);
        assert_eq!(reply.content_type, "x/y;q=0.5, */*");
        let reply = call(host, "media", "", "").unwrap();
        assert_eq!(reply.output_base64.0, b"None None");
        assert_eq!(reply.content_type, "x/nothing");
        // The longest that the contract permits, and one byte more.
        let long = "a".repeat(2048);
        call(host, "echo", &long[..255], &long).unwrap();
        let (refused, reason) = refusal(call(host, "media", &long[..256], ""));
        assert_eq!(refused, code::INVALID_PARAMS);
        assert!(reason.contains("256 bytes, the limit is 255"), "{reason}");
        let (refused, _) = refusal(call(host, "media", "", "a\0b"));
        assert_eq!(refused, code::INVALID_PARAMS);
    });
}

#[test]
fn refused_media_types_have_codes_and_lists() {
    both(&actor("mark=1"), |host| {
        assert_eq!(
            refusal(call(host, "no-media", "", "a/b")),
            (
                code::NOT_ACCEPTABLE,
                "not acceptable: only x/this".to_owned()
            )
        );
        assert_eq!(
            refusal(call(host, "no-such-media", "a/b", "")),
            (
                code::UNSUPPORTED_MEDIA,
                "unsupported media type: only x/that".to_owned()
            )
        );
        let (refused, reason) = refusal(call(host, "nothing", "a/b", "c/d"));
        assert_eq!(refused, code::NO_PLUGIN_METHOD);
        assert!(reason.ends_with("no method `nothing`"), "{reason}");
    });
}

#[test]
fn media_types_pass_from_plugin_to_plugin() {
    let user = actor("mark=user").requiring("base", "*", OnReplace::Rebind);
    let lab = Lab::new();
    lab.put(&user);
    lab.put(&actor("mark=base").named("base"));
    let test = |host: TestHost| {
        let params = CallParams {
            content_type: "a/b".to_owned(),
            accept: "x/y".to_owned(),
            ..call_params("actor", "ask", b"base media")
        };
        let reply: CallReply = host.client().request(method::CALL, &params, SOON).unwrap();
        assert_eq!(reply.output_base64.0, br#"Some("a/b") Some("x/y")"#);
        assert_eq!(reply.content_type, "x/y");
        let params = call_params("actor", "ask", b"base no-media");
        let refused = host
            .client()
            .request::<CallReply>(method::CALL, &params, SOON);
        assert_eq!(refusal(refused).0, code::NOT_ACCEPTABLE);
        host.stop();
    };
    test(lab.start_with("watch = false\n"));
    if let Some(host) = lab.start_sandboxed("watch = false\n") {
        test(host);
    }
}

#[test]
fn a_plugin_describes_itself() {
    both(&actor("mark=1"), |host| {
        let description = described(host).unwrap();
        let [mark] = &description.methods[..] else {
            panic!("{description:?}")
        };
        assert_eq!(mark.name, "mark");
        assert_eq!(mark.summary, "Says which \"version\" it is");
        assert_eq!(mark.reply.content_types, ["text/plain; charset=utf-8"]);
        assert_eq!(
            mark.reply.schema,
            Some(serde_json::json!({ "type": "string" }))
        );
    });
}

#[test]
fn plugins_of_older_minors_go_on_working() {
    for minor in [0, 1] {
        both(&actor("mark=old").with_abi(1, minor), |host| {
            assert_eq!(host.text("actor", "mark"), "old");
            let reply = call(host, "media", "a/b", "c/d").unwrap();
            assert_eq!(reply.output_base64.0, b"None None");
            assert_eq!(
                refusal(described(host)),
                (
                    code::NOT_POSSIBLE,
                    "`actor` does not describe itself".to_owned()
                )
            );
        });
    }
}
