//! Repairs the properties of foreign messages, frame by frame, before lapin parses them.
//!
//! RabbitMQ stores the properties of a message unread, as the publisher wrote them. lapin closes
//! the whole connection at the first property that it can't parse (a `message_id` that is not
//! UTF-8), RabbitMQ delivers the message again to the next connection, and one bad publisher stops
//! all jobs. Therefore the sanitizer inspects each frame between the socket and lapin: each byte
//! that is not UTF-8 becomes a `?`. Properties are dropped if their structure is broken, if they
//! are nested so deeply that a recursive parser would run out of stack, or if they are longer than
//! the frame size that was negotiated with RabbitMQ, which passes them on nevertheless. The body is
//! never changed.
//!
//! Deliberately absent: sockets, and any judgement of messages. Bytes that can't be AMQP pass
//! unchanged, so that lapin reports the error.

/// Frame types of AMQP 0-9-1. Only the first two carry text that a publisher chose.
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Type, channel and size of a frame.
const FRAME_HEAD: usize = 7;
/// The octet that ends a frame.
const FRAME_END: usize = 1;
/// Class, weight and body size; then come the flags, two octets.
const BEFORE_FLAGS: usize = 12;
/// `basic.deliver`: class 60, method 60.
const BASIC_DELIVER: [u8; 4] = [0, 60, 0, 60];

/// A larger frame was not negotiated with the server (lapin proposes 128 KiB at most), so the rest
/// of it is not awaited.
const LARGEST_FRAME: usize = 1 << 20;

/// Deepest nesting of tables. Real messages have a few levels; a recursive parser needs a bound.
const DEEPEST: u32 = 16;

/// Sanitizes a stream of frames, however it is split into reads.
#[derive(Debug)]
pub(crate) struct Sanitizer {
    /// Longest frame that is passed on, bytes.
    frame_max: usize,
    /// An incomplete frame, or the head of one.
    held: Vec<u8>,
    /// Bytes still to come of a frame that passes unread, since it holds no text of a publisher.
    passing: usize,
    /// The stream is not AMQP, and passes unread.
    foreign: bool,
}

/// The change that was made to the properties of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Bytes that are not UTF-8 were replaced by `?`.
    Replaced,
    /// All properties were dropped.
    Dropped,
}

impl Sanitizer {
    pub(crate) fn new(frame_max: usize) -> Self {
        Self { frame_max, held: Vec::new(), passing: 0, foreign: false }
    }

    /// Takes bytes that were read, and appends to `out` those that can be passed on. Gives the
    /// largest change, if there was one.
    pub(crate) fn take(&mut self, mut read: &[u8], out: &mut Vec<u8>) -> Option<Change> {
        let mut change = None;
        while !read.is_empty() {
            if self.foreign {
                out.extend_from_slice(read);
                break;
            }
            if self.passing > 0 {
                let (pass, rest) = read.split_at(self.passing.min(read.len()));
                out.extend_from_slice(pass);
                self.passing -= pass.len();
                read = rest;
                continue;
            }
            let wanted = frame_length(&self.held).unwrap_or(FRAME_HEAD);
            let (more, rest) = read.split_at((wanted - self.held.len()).min(read.len()));
            self.held.extend_from_slice(more);
            read = rest;
            change = change.max(self.pass_on(out));
        }
        change
    }

    /// Passes on the held bytes as soon as they are known to be harmless.
    fn pass_on(&mut self, out: &mut Vec<u8>) -> Option<Change> {
        let kind = self.held[0];
        let length = frame_length(&self.held);
        let is_foreign = !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT);
        let has_text = matches!(kind, METHOD | HEADER);
        if is_foreign || length.is_some_and(|length| has_text && length > LARGEST_FRAME) {
            self.foreign = true;
            out.append(&mut self.held);
            return None;
        }
        let length = length?;
        if !has_text {
            self.passing = length - self.held.len();
            out.append(&mut self.held);
            return None;
        }
        if self.held.len() < length {
            return None;
        }
        let change = match kind {
            HEADER => repair_header(&mut self.held, self.frame_max),
            _ => repair_method(&mut self.held),
        };
        out.append(&mut self.held);
        change
    }
}

/// The length of a whole frame; `None` while its head is incomplete.
fn frame_length(frame: &[u8]) -> Option<usize> {
    let size = frame.get(3..FRAME_HEAD)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*size)).ok()?.checked_add(FRAME_HEAD + FRAME_END)
}

/// Repairs the exchange and the routing key of a delivery, which the publisher chose as well.
fn repair_method(frame: &mut [u8]) -> Option<Change> {
    let payload = FRAME_HEAD..frame.len() - FRAME_END;
    let mut walk = Walk::new(&mut frame[payload]);
    if !walk.bytes.starts_with(&BASIC_DELIVER) {
        return None;
    }
    let mut arguments = || {
        walk.skip(BASIC_DELIVER.len())?;
        walk.short_string()?;
        walk.skip(8 + 1)?;
        walk.short_string()?;
        walk.short_string()
    };
    // RabbitMQ writes the structure; no publisher can break it.
    let _whole: Option<()> = arguments();
    walk.replaced.then_some(Change::Replaced)
}

fn repair_header(frame: &mut Vec<u8>, frame_max: usize) -> Option<Change> {
    let payload = FRAME_HEAD..frame.len() - FRAME_END;
    if payload.len() < BEFORE_FLAGS {
        return None;
    }
    let fits = frame.len() <= frame_max;
    let mut walk = Walk::new(&mut frame[payload]);
    if walk.properties().is_some() && fits {
        return walk.replaced.then_some(Change::Replaced);
    }
    let end = frame.last().copied();
    frame.truncate(FRAME_HEAD + BEFORE_FLAGS);
    frame.extend([0, 0]);
    let size = u32::try_from(frame.len() - FRAME_HEAD).expect("a few bytes");
    frame[3..FRAME_HEAD].copy_from_slice(&size.to_be_bytes());
    frame.extend(end);
    Some(Change::Dropped)
}

/// Walks over a payload. `None` means that its structure is broken.
struct Walk<'a> {
    bytes: &'a mut [u8],
    at: usize,
    replaced: bool,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0, replaced: false }
    }

    /// The flags, and the properties that they announce, up to the end of the payload.
    fn properties(&mut self) -> Option<()> {
        self.skip(BEFORE_FLAGS)?;
        let flags = self.number::<2>()?;
        for bit in (2..16).rev().filter(|bit| flags & (1 << bit) != 0) {
            match bit {
                13 => self.table(0)?,
                // Delivery mode and priority.
                12 | 11 => self.skip(1)?,
                // The timestamp.
                6 => self.skip(8)?,
                _ => self.short_string()?,
            }
        }
        // The two lowest bits announce properties that basic messages don't have.
        (flags & 0b11 == 0 && self.at == self.bytes.len()).then_some(())
    }

    fn table(&mut self, depth: u32) -> Option<()> {
        self.list(depth, |walk| {
            walk.short_string()?;
            walk.value(depth)
        })
    }

    /// A length of four bytes, and elements of that many bytes.
    fn list(&mut self, depth: u32, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let length = usize::try_from(self.number::<4>()?).ok()?;
        let end = self.at.checked_add(length)?;
        if depth > DEEPEST || end > self.bytes.len() {
            return None;
        }
        while self.at < end {
            element(self)?;
        }
        (self.at == end).then_some(())
    }

    /// A type and its value, for the types that RabbitMQ and lapin know.
    fn value(&mut self, depth: u32) -> Option<()> {
        match u8::try_from(self.number::<1>()?).ok()? {
            b'V' => Some(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(1 + 4),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => {
                let length = self.number::<4>()?;
                self.skip(usize::try_from(length).ok()?)
            }
            b'F' => self.table(depth + 1),
            b'A' => self.list(depth + 1, |walk| walk.value(depth + 1)),
            _ => None,
        }
    }

    fn short_string(&mut self) -> Option<()> {
        let length = usize::try_from(self.number::<1>()?).ok()?;
        let start = self.at;
        self.skip(length)?;
        let text = &mut self.bytes[start..self.at];
        while let Err(error) = std::str::from_utf8(text) {
            text[error.valid_up_to()] = b'?';
            self.replaced = true;
        }
        Some(())
    }

    /// A big-endian number of at most four bytes.
    fn number<const N: usize>(&mut self) -> Option<u32> {
        let bytes = self.bytes.get(self.at..)?.first_chunk::<N>()?;
        let number = bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        self.at += N;
        Some(number)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        let to = self.at.checked_add(count)?;
        (to <= self.bytes.len()).then(|| self.at = to)
    }
}

#[cfg(test)]
mod tests;
