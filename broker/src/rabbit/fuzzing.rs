//! The private readers of foreign bytes, for tests that feed them garbage. No API: it changes without notice.

use crate::Error;

use super::address::Address;
use super::sanitizer::Sanitizer;

/// What lapin gets to see of these reads from the socket; and whether it is something else than what was read.
pub fn sanitize<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let (mut sanitizer, mut out, mut changed) = (Sanitizer::new(1 << 17), Vec::new(), false);
    for read in reads {
        changed |= sanitizer.take(read, &mut out).is_some();
    }
    (out, changed)
}

/// What an `amqp_url` means, for people.
pub fn address(url: &str) -> Result<String, Error> {
    Address::parse(url).map(|address| address.to_string())
}
