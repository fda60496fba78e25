//! The streams on which a server may send a body: those whose answers have begun.

use std::collections::BTreeSet;

/// Answers that are remembered. A client has fewer streams at one time; the rest are of streams that it reset itself, of which nothing
/// here tells.
const MAX_BEGUN: usize = 1024;

#[derive(Default)]
pub(super) struct Answers {
    /// Streams with the head of an answer, which the server has not ended.
    begun: BTreeSet<u32>,
    /// The highest stream that was forgotten: up to there nothing is known.
    forgotten: u32,
}

impl Answers {
    /// The head of an answer, not of an interim one, has come.
    pub(super) fn begin(&mut self, stream: u32) {
        self.begun.insert(stream);
        if self.begun.len() > MAX_BEGUN {
            self.forgotten = self.begun.pop_first().unwrap_or_default().max(self.forgotten);
        }
    }

    /// The server has ended a stream.
    pub(super) fn end(&mut self, stream: u32) {
        self.begun.remove(&stream);
    }

    /// Whether a body may come on a stream, as far as is known.
    pub(super) fn may_continue(&self, stream: u32) -> bool {
        stream <= self.forgotten || self.begun.contains(&stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_until_they_end_and_in_bounded_number() {
        let mut answers = Answers::default();
        answers.begin(1);
        assert!(answers.may_continue(1) && !answers.may_continue(3));
        answers.end(1);
        assert!(!answers.may_continue(1));
        (0..=MAX_BEGUN as u32).for_each(|number| answers.begin(101 + 2 * number));
        assert_eq!((answers.begun.len(), answers.forgotten), (MAX_BEGUN, 101));
        assert!(answers.may_continue(101), "nothing is held against a stream that was forgotten");
        assert!(answers.may_continue(103) && !answers.may_continue(9_999));
    }
}
