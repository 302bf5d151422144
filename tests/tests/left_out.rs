//! Not a test: one line that says which tests `cargo test` left out, so that nobody takes a green
//! run without services for the whole truth.

#[expect(clippy::print_stderr, reason = "telling is all that this program does")]
fn main() {
    if !cfg!(feature = "services") {
        eprintln!("left out: the tests against real RabbitMQ and Redis; `./test` runs them too");
    }
}
