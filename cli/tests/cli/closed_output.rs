//! Standard output that leads nowhere: what can't be printed is no success, and what nobody wants is.

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

#[test]
fn who_has_something_to_print_and_nowhere_to_print_it_fails() {
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
        ends(&format!("\"$0\" {arguments} >&-"), 1, "", CLOSED);
        ends(&format!("\"$0\" {arguments} >&- <&-"), 1, "", CLOSED);
        // With nobody to tell that is all that is left.
        ends(&format!("\"$0\" {arguments} >&- 2>&-"), 1, "", "");
    }
}

#[test]
fn who_wants_no_output_has_none() {
    for open in [">/dev/null", "1<>/dev/null", ">/dev/null 2>&1 <&-"] {
        for arguments in ["config", "--version", "run --task sum --items [1,2]"] {
            ends(&format!("\"$0\" {arguments} {open}"), 0, "", "");
        }
    }
    ends("\"$0\" run --task sum --items [1,2] <&- 2>&-", 0, "3\n", "");
    // Whose input is closed has a number for a file that its output could have had.
    ends("\"$0\" config <&- >kept && grep -c '^heartbeat' kept", 0, "1\n", "");
}

#[test]
fn who_has_nothing_to_print_needs_no_output() {
    let document = r#"{"task":"noop","split":{"by":"items","items":[1]},"results":"discard"}"#;
    ends(&format!("echo '{document}' | \"$0\" run - >&-"), 0, "", "");
    // What is wrong is told on standard error as ever.
    ends(
        "\"$0\" run --task nothing --items 1 >&- 2>kept; echo $?; grep -c 'nothing' kept",
        0,
        "2\n1\n",
        "",
    );
}
