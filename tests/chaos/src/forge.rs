//! Forges what a process says to RabbitMQ, so that it speaks as a broken build of it would: production code needs no switch
//! that breaks it.
//!
//! Deliberately absent: what RabbitMQ answers, which passes as it is.

use std::collections::HashSet;

/// What a broken build does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// It publishes without `mandatory`: what no queue takes is confirmed all the same.
    NotMandatory,
    /// It consumes the queue with this end of its name without acknowledgements: RabbitMQ forgets a message as soon as it was
    /// sent.
    AcknowledgedOnArrival(&'static str),
}

/// The first bytes of a connection, before any frame.
const PREAMBLE: usize = 8;
/// Type, channel and size.
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

/// The method, and two bytes that AMQP reserves, before the first argument of both.
const ARGUMENTS: usize = 6;

/// One connection's way to RabbitMQ.
#[derive(Debug)]
pub(crate) struct Forger {
    forgery: Forgery,
    /// What has come of the next frame.
    pending: Vec<u8>,
    has_begun: bool,
    /// Channels that consume without acknowledgements; those that come all the same would be an error.
    unacknowledged: HashSet<u16>,
    /// Frames that were changed or left out.
    forged: u64,
}

impl Forger {
    pub(crate) fn new(forgery: Forgery) -> Self {
        let (pending, unacknowledged) = (Vec::new(), HashSet::new());
        Self { forgery, pending, has_begun: false, unacknowledged, forged: 0 }
    }

    /// Takes what the process sent, and gives what is to be sent in its place, by whole frames, and how many of them are forged.
    pub(crate) fn forge(&mut self, sent: &[u8]) -> (Vec<u8>, u64) {
        self.pending.extend_from_slice(sent);
        let before = self.forged;
        let (mut told, mut at) = (Vec::with_capacity(self.pending.len()), 0);
        while let Some(size) = self.next_size(at) {
            let unit = at..at + size;
            if !self.has_begun {
                self.has_begun = true;
                told.extend_from_slice(&self.pending[unit]);
            } else if self.passes(at) {
                told.extend_from_slice(&self.pending[unit]);
            } else {
                self.forged += 1;
            }
            at += size;
        }
        self.pending.drain(..at);
        (told, self.forged - before)
    }

    /// The length of what begins there, if all of it has come.
    fn next_size(&self, at: usize) -> Option<usize> {
        let rest = &self.pending[at..];
        let size = if self.has_begun {
            let size = u32::from_be_bytes(rest.get(3..HEADER)?.try_into().ok()?);
            // And the octet that ends a frame.
            HEADER + size as usize + 1
        } else {
            PREAMBLE
        };
        (rest.len() >= size).then_some(size)
    }

    /// Whether the frame that begins there is to be sent; changes it where that is the forgery.
    fn passes(&mut self, at: usize) -> bool {
        let frame = &self.pending[at..];
        let channel = u16::from_be_bytes([frame[1], frame[2]]);
        let payload = at + HEADER;
        if frame[0] != METHOD_FRAME || short(&self.pending, payload) != BASIC {
            return true;
        }
        match (self.forgery, short(&self.pending, payload + 2)) {
            (Forgery::NotMandatory, PUBLISH) => {
                let (_, bits) = strings(&self.pending, payload + ARGUMENTS);
                self.pending[bits] &= !MANDATORY;
                self.forged += 1;
            }
            (Forgery::AcknowledgedOnArrival(end), CONSUME) => {
                let (queue, bits) = strings(&self.pending, payload + ARGUMENTS);
                if queue.ends_with(end.as_bytes()) {
                    self.pending[bits] |= NO_ACK;
                    self.unacknowledged.insert(channel);
                    self.forged += 1;
                }
            }
            (Forgery::AcknowledgedOnArrival(_), ACK | REJECT | NACK) => {
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

/// The first of the two short strings that begin there (exchange and key, or queue and consumer tag), and where the bits
/// after them lie.
fn strings(bytes: &[u8], at: usize) -> (&[u8], usize) {
    let after = |at: usize| at + 1 + usize::from(bytes[at]);
    let second = after(at);
    (&bytes[at + 1..second], after(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREAMBLE: &[u8] = b"AMQP\0\0\x09\x01";

    /// A frame of `basic` on a channel.
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

    /// What is told in place of these frames, however they are cut on their way.
    #[track_caller]
    fn check(forgery: Forgery, sent: &[Vec<u8>], told: &[Vec<u8>], forged: u64) {
        let sent = [PREAMBLE, &sent.concat()].concat();
        let told = [PREAMBLE, &told.concat()].concat();
        for cut in 1..=sent.len() {
            let mut forger = Forger::new(forgery);
            let pieces = sent.chunks(cut).map(|piece| forger.forge(piece));
            let (found, counts): (Vec<Vec<u8>>, Vec<u64>) = pieces.unzip();
            assert_eq!((found.concat(), counts.iter().sum()), (told.clone(), forged), "by {cut}");
        }
    }

    #[test]
    fn publishes_lose_their_mandatory_and_nothing_else_changes() {
        let body = [vec![3, 0, 3, 0, 0, 0, 2], b"{}\xCE".to_vec()].concat();
        let sent = [publish(1), body.clone(), ack(3), consume(3, "ns.jobs", 0), publish(3)];
        let told = [publish(0), body, ack(3), consume(3, "ns.jobs", 0), publish(2)];
        check(Forgery::NotMandatory, &sent, &told, 2);
    }

    #[test]
    fn a_queue_is_consumed_without_acknowledgements_and_others_are_not() {
        let forgery = Forgery::AcknowledgedOnArrival(".jobs");
        let sent =
            [consume(1, "ns.jobs", 0), consume(2, "ns.journal", 0), ack(1), ack(2), publish(1)];
        let told = [consume(1, "ns.jobs", 2), consume(2, "ns.journal", 0), ack(2), publish(1)];
        check(forgery, &sent, &told, 2);
    }
}
