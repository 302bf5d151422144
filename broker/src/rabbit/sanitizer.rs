//! Makes the properties of foreign messages readable before lapin parses them.
//!
//! RabbitMQ keeps the properties of a message as the publisher wrote them, unread. lapin gives up the whole connection at the
//! first one that it can't parse (a `message_id` that is not UTF-8), RabbitMQ delivers the message again to the next
//! connection, and one bad publisher stops all jobs. So this looks at each frame on its way from the socket to lapin: bytes that
//! are not UTF-8 become `?`, one for one; properties whose structure is broken, or nested so deeply that a recursive parser
//! would run out of stack, are left out, and so are those that are longer than a frame that we agreed on with RabbitMQ, which
//! passes them on all the same. The body is never touched.
//!
//! Deliberately absent: sockets, and any judgement of messages. What can't be AMQP at all passes unchanged, so that lapin finds
//! the words for it.

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

/// A frame larger than this was not agreed on with the server (lapin proposes 128 KiB at most), so it is not waited for.
const LARGEST_FRAME: usize = 1 << 20;

/// Tables in tables. Nobody writes more than a few; a parser that recurses needs a bound.
const DEEPEST: u32 = 16;

/// Looks at a stream of frames, however it is cut into reads.
#[derive(Debug)]
pub(crate) struct Sanitizer {
    /// No frame handed on is longer.
    frame_max: usize,
    /// A frame, or the head of one, that is not complete yet.
    held: Vec<u8>,
    /// Bytes of a frame without foreign text that are still to come.
    passing: usize,
    /// This is no AMQP.
    foreign: bool,
}

/// What was done to the properties of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Bytes that are not UTF-8 became `?`.
    Replaced,
    /// All of them were left out.
    Dropped,
}

impl Sanitizer {
    pub(crate) fn new(frame_max: usize) -> Self {
        Self { frame_max, held: Vec::new(), passing: 0, foreign: false }
    }

    /// Takes what was read; appends to `out` what may be handed on. Says what was changed, if anything.
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
            change = change.max(self.hand_on(out));
        }
        change
    }

    /// Hands on what is held, as soon as it is known to be harmless.
    fn hand_on(&mut self, out: &mut Vec<u8>) -> Option<Change> {
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
            HEADER => mend_header(&mut self.held, self.frame_max),
            _ => mend_method(&mut self.held),
        };
        out.append(&mut self.held);
        change
    }
}

/// The length of a whole frame, once its head is there.
fn frame_length(frame: &[u8]) -> Option<usize> {
    let size = frame.get(3..FRAME_HEAD)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*size)).ok()?.checked_add(FRAME_HEAD + FRAME_END)
}

/// The exchange and the routing key of a delivery are the publisher's words too.
fn mend_method(frame: &mut [u8]) -> Option<Change> {
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
    // RabbitMQ wrote the structure; if it is broken, that is not a publisher's doing.
    let _whole: Option<()> = arguments();
    walk.replaced.then_some(Change::Replaced)
}

fn mend_header(frame: &mut Vec<u8>, frame_max: usize) -> Option<Change> {
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

/// A walk over a payload. `None` means that its structure is broken.
struct Walk<'a> {
    bytes: &'a mut [u8],
    at: usize,
    replaced: bool,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0, replaced: false }
    }

    /// Flags, and the properties that they announce, to the end of the payload.
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
        // The two lowest bits announce what basic messages don't have.
        (flags & 0b11 == 0 && self.at == self.bytes.len()).then_some(())
    }

    fn table(&mut self, depth: u32) -> Option<()> {
        self.list(depth, |walk| {
            walk.short_string()?;
            walk.value(depth)
        })
    }

    /// A length of four bytes, and as many bytes of elements.
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

    /// A value behind its type, as RabbitMQ and lapin know them.
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
