//! `longshore dev --serve`: the commands of docs/http.md, as they stand.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;

use crate::given::{self, Given};

/// The shell commands of a page: its blocks that begin with `sh`.
fn commands(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn the_commands_of_the_page_on_http_do_what_it_says() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/http.md");
    let script = commands(&std::fs::read_to_string(page).expect("the page"));
    assert!(script.matches("curl").count() >= 12, "{script}");

    let given = Given::nothing()
        .file("script.sh", format!("set -eu\n{script}"))
        .variable("LONGSHORE_HTTP_LISTEN", "127.0.0.1:0");
    let mut child = given.start(&["dev", "--serve"]);
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let first = lines.next().expect("a line").expect("text");
    let api = first.strip_prefix("serving the HTTP API at ").expect("the address").to_owned();

    let ran = Command::new("bash")
        .arg("script.sh")
        .current_dir(given.folder())
        .env("api", &api)
        .output()
        .expect("bash runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&ran.stdout), text(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    for wanted in [
        "ready\n",
        "\"state\":\"paused\"",
        "{\"index\":199,\"result\":20}\n",
        "succeeded\n",
        "3 of 3 subtasks failed\n",
        "\"index\":2",
        "\"state\":\"deleted\"",
        "{\"line\":3,\"status\":201,",
        "event: snapshot\n",
        "[\"anyone\",\"submit_job\",\"done\"]\n",
    ] {
        assert!(out.contains(wanted), "no {wanted:?} in\n{out}\n{err}");
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    assert_eq!(given::finish(child).code, Some(0));
}
