//! Closed standard output: output that can't be written is an error, unless it is not wanted.

use crate::given::Given;

#[track_caller]
fn ends(line: &str, code: i32, stdout: &str, stderr: &str) {
    let output = Given::nothing().shell(line).output().expect("a shell");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&output.stderr), stderr, "{line}");
    assert_eq!(text(&output.stdout), stdout, "{line}");
    assert_eq!(output.status.code(), Some(code), "{line}");
}

const CLOSED: &str = "error: standard output is closed\n";
const CLOSED_JSON: &str =
    "{\"kind\":\"other\",\"title\":\"other failure\",\"detail\":\"standard output is closed\"}\n";

#[test]
fn output_that_can_not_be_written_is_an_error() {
    for arguments in [
        "config",
        "config --json",
        "completions bash",
        "--help",
        "help run",
        "--version",
        "run --task sum --items [1,2]",
        "run --task sum --items [1,2] --json",
    ] {
        let closed = if arguments.ends_with("--json") { CLOSED_JSON } else { CLOSED };
        ends(&format!("\"$0\" {arguments} >&-"), 1, "", closed);
        ends(&format!("\"$0\" {arguments} >&- <&-"), 1, "", closed);
        // Without standard error, only the exit code is left.
        ends(&format!("\"$0\" {arguments} >&- 2>&-"), 1, "", "");
    }
}

#[test]
fn output_to_dev_null_is_no_error() {
    for open in [">/dev/null", "1<>/dev/null", ">/dev/null 2>&1 <&-"] {
        for arguments in ["config", "--version", "run --task sum --items [1,2]"] {
            ends(&format!("\"$0\" {arguments} {open}"), 0, "", "");
        }
    }
    ends("\"$0\" run --task sum --items [1,2] <&- 2>&-", 0, "3\n", "");
    // With a closed standard input, the next opened file gets a low descriptor.
    ends("\"$0\" config <&- >kept && grep -c '^heartbeat' kept", 0, "1\n", "");
}

#[test]
fn a_command_without_output_needs_no_standard_output() {
    let document = r#"{"task":"noop","split":{"by":"items","items":[1]},"results":"discard"}"#;
    ends(&format!("echo '{document}' | \"$0\" run - >&-"), 0, "", "");
    // Errors are written to standard error as usual.
    ends(
        "\"$0\" run --task nothing --items 1 >&- 2>kept; echo $?; grep -c 'nothing' kept",
        0,
        "2\n1\n",
        "",
    );
}
