//! Prints which tests a plain `cargo test` left out.
//!
//! So a passing run without services is not taken for the full one.

#[expect(clippy::print_stderr, reason = "the message is the only purpose of this program")]
fn main() {
    if !cfg!(feature = "services") {
        eprintln!("left out: the tests against real RabbitMQ and Redis; `./test` runs them too");
    }
}
