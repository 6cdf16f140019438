//! The description of the HTTP interface is what the host does, as a foreign program judges it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use hotmerge_tests::{BUILT, Http, Lab, actor, closed_http, repository, run, scratch};

const SECRET: &str = "a secret of sixteen characters or more";

/// A Python environment with what tests of this program need, made once.
fn python() -> PathBuf {
    let wanted = repository().join("tests/e2e/http_openapi.txt");
    let dir = scratch().join("python-openapi");
    let stamp = dir.join("installed");
    let text = fs::read_to_string(&wanted).unwrap();
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == text) {
        return dir;
    }
    run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&dir),
        BUILT,
    )
    .ok();
    let mut pip = Command::new(dir.join("bin/pip"));
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ])
    .arg(&wanted);
    run(&mut pip, BUILT).ok();
    fs::write(stamp, text).unwrap();
    dir
}

#[test]
fn the_interface_is_as_described() {
    let lab = Lab::new();
    lab.put(&actor("mark=one"));
    let tokens = lab.path("tokens.toml");
    fs::write(&tokens, format!("ops = \"{SECRET}\"\n")).unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let config = format!(
        "[[door.allow]]\ntoken = \"ops\"\nrole = \"admin\"\n{}",
        closed_http(&format!("tokens = \"{}\"", tokens.display()))
    );
    let (host, http) = Http::start(&lab, &config);
    let mut schemathesis = Command::new(python().join("bin/schemathesis"));
    schemathesis
        .current_dir(lab.path(""))
        .args(["run", &http.url("/openapi.json")])
        .args(["--header", &format!("Authorization: Bearer {SECRET}")])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method"])
        .args(["--max-examples", "40", "--seed", "20261127", "--no-color", "--workers", "2"])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--generation-database", "none"]);
    run(&mut schemathesis, BUILT).ok();
    assert_eq!(host.text("actor", "mark"), "one", "it still serves");
}
