//! The description of the HTTP interface matches the host, as third-party programs judge it, whatever
//! the descriptions of plugins contain.

use std::{fs, path::PathBuf, process::Command, sync::LazyLock};

use hotmerge_tests::{
    BUILT, Driver, Http, Lab, TestHost, actor, closed_http, lock, repository, run, scratch,
};
use serde_json::Value;

const SECRET: &str = "a secret of sixteen characters or more";

/// A Python environment with the programs that tests here need, made once, also beside other test runs.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let wanted = repository().join("tests/e2e/http_openapi.txt");
    let dir = scratch().join("python-openapi");
    let _lock = lock(&dir);
    let environment = dir.join("environment");
    let stamp = environment.join("installed");
    let text = fs::read_to_string(&wanted).unwrap();
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == text) {
        return environment;
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&environment);
    run(&mut venv, BUILT).ok();
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"])
        .arg("--requirement")
        .arg(&wanted);
    run(&mut pip, BUILT).ok();
    fs::write(stamp, text).unwrap();
    environment
});

/// A host with plugins, whose tokens let the holder of [`SECRET`] do everything.
fn front(lab: &Lab) -> (TestHost, Http) {
    let tokens = lab.tokens(&[("ops", SECRET)]);
    let config = format!(
        "[[door.allow]]\ntoken = \"ops\"\nrole = \"admin\"\n{}",
        closed_http(&tokens)
    );
    let (host, http) = Http::start(lab, &config);
    (host, http.with_token(SECRET))
}

#[test]
fn the_interface_is_as_described() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let build_dir = scratch().join("announce/build");
    Driver::new(
        &repository().join("Cargo.toml"),
        &lab.plugin_dir(),
        &build_dir,
    )
    .arguments(["--notify", "never", "--plugin", "announce"])
    .run()
    .ok();
    let (host, http) = front(&lab);
    let document = http.get("/openapi.json").json();
    for path in ["/plugins/actor/mark", "/plugins/announce/generate"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let mut schemathesis = Command::new(PYTHON.join("bin/schemathesis"));
    schemathesis
        .current_dir(lab.path(""))
        .args(["run", &http.url("/openapi.json")])
        .args(["--header", &format!("Authorization: Bearer {SECRET}")])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method"])
        .args(["--max-examples", "40", "--seed", "20261127", "--no-color", "--workers", "2"])
        // An answer without an end; `http_page` reads it.
        .args(["--exclude-path", "/events"])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--generation-database", "none"]);
    run(&mut schemathesis, BUILT).ok();
    assert_eq!(host.text("actor", "mark"), "one", "it still serves");
}

/// The document, which must be valid.
#[track_caller]
fn valid(lab: &Lab, http: &Http) -> Value {
    let answer = http.get("/openapi.json");
    assert_eq!(answer.status, 200, "{answer:?}");
    let file = lab.path("openapi.json");
    fs::write(&file, &answer.body).unwrap();
    let mut validator = Command::new(PYTHON.join("bin/openapi-spec-validator"));
    run(validator.args(["--schema", "3.1"]).arg(&file), BUILT).ok();
    answer.json()
}

/// What the document says of a plugin as a whole.
fn said(document: &Value, plugin: &str) -> String {
    let tags = document["tags"].as_array().unwrap();
    let tag = tags
        .iter()
        .find(|it| it["name"] == format!("plugins/{plugin}"));
    let tag = tag.unwrap_or_else(|| panic!("nothing is said of `{plugin}`"));
    tag["description"].as_str().unwrap().to_owned()
}

#[test]
fn a_wild_description_leaves_the_document_valid() {
    let lab = Lab::new();
    lab.put(&actor("describe=wild"));
    lab.put(&actor("mark=two").named("mild"));
    let (_host, http) = front(&lab);
    let document = valid(&lab, &http);
    let said = said(&document, "actor");
    for part in [
        "`../admin/{x}`: an address cannot hold this name",
        "`history`: `GET` of its address has another meaning",
        "the request schema of `mark`: `#/$ref` must be a reference to a place in the same schema",
        "request types of `mark`: 2 are invalid media types or too many",
        "the reply schema of `mark`: `#` refers to itself endlessly",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let paths = document["paths"].as_object().unwrap();
    let own = paths.keys().filter(|it| it.starts_with("/plugins/actor/"));
    assert_eq!(
        own.collect::<Vec<_>>(),
        ["/plugins/actor/echo", "/plugins/actor/mark"]
    );
    let schema = &document["components"]["schemas"]["actor.echo.request"];
    let next = "#/components/schemas/actor.echo.request";
    assert_eq!(schema["properties"]["next"]["$ref"], next);
    assert!(document["paths"]["/plugins/mild/mark"].is_object());
    assert_eq!(http.post("/plugins/actor/echo", b"{}").status, 200);
}

#[test]
fn a_hanging_description_holds_nothing_up() {
    let lab = Lab::new();
    lab.put(&actor("describe=hang"));
    lab.put(&actor("describe=panic").named("fallen"));
    lab.put(&actor("mark=two").named("mild"));
    lab.put(&actor("mark=old").with_abi(1, 1).named("old"));
    let (host, http) = front(&lab);
    let document = valid(&lab, &http);
    let late = "Not described: it has not described itself yet; try again";
    assert_eq!(said(&document, "actor"), late);
    let status = http.get("/plugins/actor").json();
    assert!(status["not_described"].is_string(), "{status}");
    assert!(document["paths"]["/plugins/mild/mark"].is_object());
    let fallen = said(&document, "fallen");
    assert!(fallen.starts_with("Not described: "), "{fallen}");
    let status = http.get("/plugins/old").json();
    assert!(status["methods"].is_null() && status["not_described"].is_null());
    assert_eq!(host.plugin("old").calls_failed, 0, "nobody called it");
    assert_eq!(http.post("/plugins/mild/mark", b"").status, 200);
}

#[test]
fn a_new_version_is_asked_again() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let (host, http) = front(&lab);
    let first = http.get("/plugins/actor");
    assert_eq!(first.json()["methods"][0]["name"], "mark");
    let tag = first.header("etag").unwrap();
    let known = [("if-none-match", tag)];
    assert_eq!(http.get_with("/plugins/actor", &known).status, 304);
    host.reload_after(|| lab.put(&actor("describe=wild")));
    let second = http.get_with("/plugins/actor", &known).json();
    assert_eq!(second["methods"].as_array().unwrap().len(), 4);
    assert!(http.get("/openapi.json").json()["paths"]["/plugins/actor/echo"].is_object());
}

#[test]
fn the_document_has_what_its_reader_may_call() {
    let lab = Lab::new();
    lab.put(&actor("describe=wild"));
    let config = format!(
        "[[door.allow]]\nanybody = true\nrole = \"call\"\nmethods = [\"echo\"]\n{}",
        closed_http("")
    );
    let (host, http) = Http::start(&lab, &config);
    let document = http.get("/openapi.json").json();
    assert!(document["paths"]["/plugins/actor/echo"].is_object());
    assert!(document["paths"]["/plugins/actor/mark"].is_null());
    host.stop();
    let (_host, http) = Http::start(&lab, &closed_http(""));
    let document = http.get("/openapi.json");
    let text = String::from_utf8(document.body).unwrap();
    assert!(!text.contains("actor"), "strangers learn no names");
}
