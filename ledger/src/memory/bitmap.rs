//! A paged bitmap: one bit an index, and almost no memory for pages that are all set or all clear.
//!
//! A job of ten million subtasks whose commits arrive in ranges costs a page header per 32,768
//! subtasks once they are done. Deliberately absent: a fixed length. A bitmap ends with its last
//! set page; all bits after are clear.

use std::ops::Range;

const WORD_BITS: u64 = 64;
const PAGE_WORDS: usize = 512;
const PAGE_BITS: u64 = PAGE_WORDS as u64 * WORD_BITS;

/// A set of indices, kept as bits.
#[derive(Clone, Debug, Default)]
pub(super) struct Bitmap {
    pages: Vec<Page>,
}

/// A page without words is all clear (`ones` is 0) or all set (`ones` is `PAGE_BITS`).
#[derive(Clone, Debug, Default)]
struct Page {
    ones: u64,
    words: Option<Box<[u64; PAGE_WORDS]>>,
}

impl Bitmap {
    /// Whether bit `index` is set.
    pub(super) fn get(&self, index: u64) -> bool {
        let (page, bit) = place(index);
        self.pages.get(page).is_some_and(|page| page.get(bit))
    }

    /// Sets the bits of `range`; returns how many were clear.
    pub(super) fn set_range(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let pages = place(range.end - 1).0 + 1;
        if self.pages.len() < pages {
            self.pages.resize_with(pages, Page::default);
        }
        parts(range).map(|(page, bits)| self.pages[page].write(bits, true)).sum()
    }

    /// Clears the bits of `range`; returns how many were set.
    pub(super) fn clear_range(&mut self, range: Range<u64>) -> u64 {
        let end = range.end.min(self.length());
        let flipped =
            parts(range.start..end).map(|(page, bits)| self.pages[page].write(bits, false)).sum();
        while self.pages.last().is_some_and(|page| page.ones == 0) {
            self.pages.pop();
        }
        flipped
    }

    /// The number of set bits in `range`.
    pub(super) fn count(&self, range: Range<u64>) -> u64 {
        let end = range.end.min(self.length());
        parts(range.start..end).map(|(page, bits)| self.pages[page].count(bits)).sum()
    }

    /// The first clear bit in `range`.
    pub(super) fn next_zero(&self, range: Range<u64>) -> Option<u64> {
        let stored = range.start..range.end.min(self.length());
        let found = parts(stored).find_map(|(page, bits)| {
            self.pages[page].find(bits, false).map(|bit| page as u64 * PAGE_BITS + bit)
        });
        // All bits after the last page are clear.
        let after = range.start.max(self.length());
        found.or_else(|| (after < range.end).then_some(after))
    }

    /// The first set bit in `range`.
    pub(super) fn next_one(&self, range: Range<u64>) -> Option<u64> {
        let stored = range.start..range.end.min(self.length());
        parts(stored).find_map(|(page, bits)| {
            self.pages[page].find(bits, true).map(|bit| page as u64 * PAGE_BITS + bit)
        })
    }

    /// The runs of clear bits in `range`, in order.
    pub(super) fn clear_runs(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let mut at = range.start;
        while let Some(start) = self.next_zero(at..range.end) {
            at = self.next_one(start..range.end).unwrap_or(range.end);
            runs.push(start..at);
        }
        runs
    }

    fn length(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BITS
    }
}

impl Page {
    fn get(&self, bit: u64) -> bool {
        match &self.words {
            Some(words) => words[(bit / WORD_BITS) as usize] >> (bit % WORD_BITS) & 1 == 1,
            None => self.ones != 0,
        }
    }

    /// Sets the bits to `value`; returns how many changed.
    fn write(&mut self, bits: Range<u64>, value: bool) -> u64 {
        let uniform = self.words.is_none();
        if uniform && (self.ones != 0) == value {
            return 0;
        }
        if bits == (0..PAGE_BITS) {
            let ones = std::mem::replace(&mut self.ones, if value { PAGE_BITS } else { 0 });
            self.words = None;
            return self.ones.abs_diff(ones);
        }
        let fill = if self.ones == 0 { 0 } else { u64::MAX };
        let words = self.words.get_or_insert_with(|| Box::new([fill; PAGE_WORDS]));
        let mut flipped = 0;
        for (word, mask) in masks(bits) {
            let word = &mut words[word];
            let differing = if value { !*word & mask } else { *word & mask };
            flipped += u64::from(differing.count_ones());
            *word ^= differing;
        }
        if value {
            self.ones += flipped;
        } else {
            self.ones -= flipped;
        }
        if self.ones == 0 || self.ones == PAGE_BITS {
            self.words = None;
        }
        flipped
    }

    fn count(&self, bits: Range<u64>) -> u64 {
        match &self.words {
            _ if bits == (0..PAGE_BITS) => self.ones,
            None if self.ones == 0 => 0,
            None => bits.end - bits.start,
            Some(words) => {
                masks(bits).map(|(word, mask)| u64::from((words[word] & mask).count_ones())).sum()
            }
        }
    }

    fn find(&self, bits: Range<u64>, value: bool) -> Option<u64> {
        let Some(words) = &self.words else {
            return ((self.ones != 0) == value).then_some(bits.start);
        };
        masks(bits).find_map(|(at, mask)| {
            let candidates = if value { words[at] & mask } else { !words[at] & mask };
            (candidates != 0)
                .then(|| at as u64 * WORD_BITS + u64::from(candidates.trailing_zeros()))
        })
    }
}

fn place(index: u64) -> (usize, u64) {
    let page =
        usize::try_from(index / PAGE_BITS).expect("a validated total fits in memory's pages");
    (page, index % PAGE_BITS)
}

/// Cuts a range of indices into (page, bits in it).
fn parts(range: Range<u64>) -> impl Iterator<Item = (usize, Range<u64>)> {
    cut(range, PAGE_BITS)
}

/// Cuts a range of bits of a page into (word, mask).
fn masks(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    cut(bits, WORD_BITS).map(|(word, bits)| {
        let width = bits.end - bits.start;
        (word, (u64::MAX >> (WORD_BITS - width)) << bits.start)
    })
}

fn cut(range: Range<u64>, unit: u64) -> impl Iterator<Item = (usize, Range<u64>)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let base = at - at % unit;
        let end = (base + unit).min(range.end);
        let bits = at - base..end - base;
        at = end;
        Some(((base / unit) as usize, bits))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEN: usize = 3 * PAGE_BITS as usize;

    /// Ranges that often begin or end at the border of a word or a page.
    fn range() -> impl Strategy<Value = Range<u64>> {
        let edge = prop_oneof![
            0..LEN as u64,
            (0..=LEN as u64 / WORD_BITS).prop_map(|word| word * WORD_BITS),
            (0..=3u64).prop_map(|page| page * PAGE_BITS),
        ];
        (edge.clone(), edge).prop_map(|(a, b)| a.min(b)..a.max(b))
    }

    fn span(range: &Range<u64>) -> Range<usize> {
        range.start as usize..range.end as usize
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_bitmap_behaves_like_a_list_of_booleans(
            steps in prop::collection::vec((any::<bool>(), range(), range()), 1..12),
        ) {
            let mut model = vec![false; LEN];
            let mut bitmap = Bitmap::default();
            for (value, written, asked) in steps {
                let part = &mut model[span(&written)];
                let expected = part.iter().filter(|bit| **bit != value).count() as u64;
                part.fill(value);
                let flipped =
                    if value { bitmap.set_range(written) } else { bitmap.clear_range(written) };
                prop_assert_eq!(flipped, expected);

                let part = &model[span(&asked)];
                let ones = part.iter().filter(|bit| **bit).count() as u64;
                let find = |value| {
                    part.iter().position(|bit| *bit == value).map(|at| asked.start + at as u64)
                };
                prop_assert_eq!(bitmap.count(asked.clone()), ones);
                prop_assert_eq!(bitmap.next_one(asked.clone()), find(true));
                prop_assert_eq!(bitmap.next_zero(asked.clone()), find(false));
                let is_set = model.get(asked.start as usize) == Some(&true);
                prop_assert_eq!(bitmap.get(asked.start), is_set);
                let clear: u64 =
                    bitmap.clear_runs(asked.clone()).iter().map(|s| s.end - s.start).sum();
                prop_assert_eq!(clear, part.len() as u64 - ones);
            }
        }
    }

    #[test]
    fn ten_million_bits_set_in_ranges_leave_no_words_behind() {
        let mut bitmap = Bitmap::default();
        let total = 10_000_000;
        for from in (0..total).step_by(997) {
            bitmap.set_range(from..(from + 997).min(total));
        }
        assert_eq!(bitmap.count(0..total), total);
        let with_words = bitmap.pages.iter().filter(|page| page.words.is_some()).count();
        assert_eq!((bitmap.pages.len(), with_words), (306, 1), "only the last page is partial");
    }

    #[test]
    fn beyond_the_last_set_bit_everything_is_clear() {
        let mut bitmap = Bitmap::default();
        assert_eq!(bitmap.next_zero(5..6), Some(5));
        assert_eq!(bitmap.next_zero(5..5), None);
        bitmap.set_range(0..PAGE_BITS);
        assert_eq!(bitmap.next_zero(0..PAGE_BITS), None);
        assert_eq!(bitmap.next_zero(0..PAGE_BITS + 1), Some(PAGE_BITS));
        assert_eq!(bitmap.next_one(PAGE_BITS..u64::MAX), None);
        bitmap.clear_range(0..u64::MAX);
        assert!(bitmap.pages.is_empty(), "clear pages at the end are given back");
    }
}
