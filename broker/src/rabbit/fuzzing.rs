//! Exposes the sanitizer of frames and the parser of URLs to fuzz tests.
//!
//! Not part of the API; changes without notice.

use crate::Error;

use super::address::Address;
use super::sanitizer::Sanitizer;

/// The bytes that lapin receives for these reads from the socket, and whether they differ from what
/// was read.
pub fn sanitize<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, bool) {
    let (mut sanitizer, mut out, mut changed) = (Sanitizer::new(1 << 17), Vec::new(), false);
    for read in reads {
        changed |= sanitizer.take(read, &mut out).is_some();
    }
    (out, changed)
}

/// The address that an `amqp_url` stands for, as text.
pub fn address(url: &str) -> Result<String, Error> {
    Address::parse(url).map(|address| address.to_string())
}
