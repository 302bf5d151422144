//! Changes the AMQP frames of a process, so that the process behaves as a broken build.
//!
//! Production code needs no switch for that.
//!
//! Deliberately absent: answers of RabbitMQ, which pass unchanged.

use std::collections::HashSet;

/// The behavior of a broken build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// It publishes without `mandatory`: messages that no queue takes are confirmed nevertheless.
    NotMandatory,
    /// It consumes queues with this name suffix without acknowledgements: RabbitMQ removes a
    /// message as soon as it was sent.
    AcknowledgedOnArrival(&'static str),
}

/// The first bytes of a connection, before any frame.
const PREAMBLE: usize = 8;
/// The length of a frame header: type, channel and size.
const HEADER: usize = 7;
const METHOD_FRAME: u8 = 1;

const BASIC: u16 = 60;
const CONSUME: u16 = 20;
const PUBLISH: u16 = 40;
const ACK: u16 = 80;
const REJECT: u16 = 90;
const NACK: u16 = 120;

/// Bits of `basic.publish` and `basic.consume`.
const MANDATORY: u8 = 1;
const NO_ACK: u8 = 2;

/// The offset of the first argument of both: class, method and two reserved bytes.
const ARGUMENTS: usize = 6;

/// Rewrites the frames of one connection to RabbitMQ.
#[derive(Debug)]
pub(crate) struct FrameRewriter {
    mutant: Mutant,
    /// The received part of the next frame.
    pending: Vec<u8>,
    has_begun: bool,
    /// Channels that consume without acknowledgements, on which RabbitMQ would reject
    /// acknowledgements.
    unacknowledged: HashSet<u16>,
    /// The number of changed and dropped frames.
    mutated: u64,
}

impl FrameRewriter {
    pub(crate) fn new(mutant: Mutant) -> Self {
        let (pending, unacknowledged) = (Vec::new(), HashSet::new());
        Self { mutant, pending, has_begun: false, unacknowledged, mutated: 0 }
    }

    /// Takes bytes that the process sent. Returns the whole frames to send instead, and how many
    /// frames were changed or dropped.
    pub(crate) fn rewrite(&mut self, sent: &[u8]) -> (Vec<u8>, u64) {
        self.pending.extend_from_slice(sent);
        let before = self.mutated;
        let (mut rewritten, mut at) = (Vec::with_capacity(self.pending.len()), 0);
        while let Some(size) = self.next_size(at) {
            let unit = at..at + size;
            if !self.has_begun {
                self.has_begun = true;
                rewritten.extend_from_slice(&self.pending[unit]);
            } else if self.passes(at) {
                rewritten.extend_from_slice(&self.pending[unit]);
            } else {
                self.mutated += 1;
            }
            at += size;
        }
        self.pending.drain(..at);
        (rewritten, self.mutated - before)
    }

    /// The length of the frame or preamble at `at`, if all of it has been received.
    fn next_size(&self, at: usize) -> Option<usize> {
        let rest = &self.pending[at..];
        let size = if self.has_begun {
            let size = u32::from_be_bytes(rest.get(3..HEADER)?.try_into().ok()?);
            // Plus the octet that ends a frame.
            HEADER + size as usize + 1
        } else {
            PREAMBLE
        };
        (rest.len() >= size).then_some(size)
    }

    /// Whether the frame at `at` is to be sent. Changes the frame if the mutant does.
    fn passes(&mut self, at: usize) -> bool {
        let frame = &self.pending[at..];
        let channel = u16::from_be_bytes([frame[1], frame[2]]);
        let payload = at + HEADER;
        if frame[0] != METHOD_FRAME || short(&self.pending, payload) != BASIC {
            return true;
        }
        match (self.mutant, short(&self.pending, payload + 2)) {
            (Mutant::NotMandatory, PUBLISH) => {
                let (_, bits) = strings(&self.pending, payload + ARGUMENTS);
                self.pending[bits] &= !MANDATORY;
                self.mutated += 1;
            }
            (Mutant::AcknowledgedOnArrival(end), CONSUME) => {
                let (queue, bits) = strings(&self.pending, payload + ARGUMENTS);
                if queue.ends_with(end.as_bytes()) {
                    self.pending[bits] |= NO_ACK;
                    self.unacknowledged.insert(channel);
                    self.mutated += 1;
                }
            }
            (Mutant::AcknowledgedOnArrival(_), ACK | REJECT | NACK) => {
                return !self.unacknowledged.contains(&channel);
            }
            _ => {}
        }
        true
    }
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The first of the two short strings at `at` (exchange and key, or queue and consumer tag), and
/// the offset of the bits after them.
fn strings(bytes: &[u8], at: usize) -> (&[u8], usize) {
    let after = |at: usize| at + 1 + usize::from(bytes[at]);
    let second = after(at);
    (&bytes[at + 1..second], after(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREAMBLE: &[u8] = b"AMQP\0\0\x09\x01";

    /// A frame of the class `basic` on a channel.
    fn frame(channel: u8, method: u16, arguments: &[u8]) -> Vec<u8> {
        let mut frame = vec![METHOD_FRAME, 0, channel, 0, 0, 0, arguments.len() as u8 + 4];
        frame.extend(BASIC.to_be_bytes());
        frame.extend(method.to_be_bytes());
        frame.extend(arguments);
        frame.push(0xCE);
        frame
    }

    fn publish(bits: u8) -> Vec<u8> {
        frame(3, PUBLISH, &[b"\0\0\x02ns\x04jobs", &[bits][..]].concat())
    }

    fn consume(channel: u8, queue: &str, bits: u8) -> Vec<u8> {
        let queue = [&[queue.len() as u8], queue.as_bytes()].concat();
        frame(channel, CONSUME, &[b"\0\0", &queue[..], b"\x03tag", &[bits, 0, 0, 0, 0]].concat())
    }

    fn ack(channel: u8) -> Vec<u8> {
        frame(channel, ACK, &[0, 0, 0, 0, 0, 0, 0, 1, 0])
    }

    /// Checks the frames that are sent instead, for every size of received pieces.
    #[track_caller]
    fn check(mutant: Mutant, sent: &[Vec<u8>], rewritten: &[Vec<u8>], mutated: u64) {
        let sent = [PREAMBLE, &sent.concat()].concat();
        let rewritten = [PREAMBLE, &rewritten.concat()].concat();
        for cut in 1..=sent.len() {
            let mut rewriter = FrameRewriter::new(mutant);
            let pieces = sent.chunks(cut).map(|piece| rewriter.rewrite(piece));
            let (found, counts): (Vec<Vec<u8>>, Vec<u64>) = pieces.unzip();
            assert_eq!(
                (found.concat(), counts.iter().sum()),
                (rewritten.clone(), mutated),
                "by {cut}"
            );
        }
    }

    #[test]
    fn publishes_lose_mandatory_and_nothing_else_changes() {
        let body = [vec![3, 0, 3, 0, 0, 0, 2], b"{}\xCE".to_vec()].concat();
        let sent = [publish(1), body.clone(), ack(3), consume(3, "ns.jobs", 0), publish(3)];
        let rewritten = [publish(0), body, ack(3), consume(3, "ns.jobs", 0), publish(2)];
        check(Mutant::NotMandatory, &sent, &rewritten, 2);
    }

    #[test]
    fn a_queue_is_consumed_without_acknowledgements_and_others_are_not() {
        let mutant = Mutant::AcknowledgedOnArrival(".jobs");
        let sent =
            [consume(1, "ns.jobs", 0), consume(2, "ns.journal", 0), ack(1), ack(2), publish(1)];
        let rewritten = [consume(1, "ns.jobs", 2), consume(2, "ns.journal", 0), ack(2), publish(1)];
        check(mutant, &sent, &rewritten, 2);
    }
}
