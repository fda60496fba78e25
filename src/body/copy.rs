//! A copy of a body that passes: kept beside it, and handed over when the body has ended well.

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

/// What became of a copy. A body that breaks off hands over nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyCopy {
    /// All of it.
    Whole(Bytes),
    /// It is longer than what may be kept.
    TooLong,
}

/// A copy in the making. The bytes are copied, not shared: a few of them would keep the whole buffer alive that they were read into.
pub(super) struct Copying {
    bytes: BytesMut,
    max_bytes: usize,
    /// `None` when it has been handed over.
    to: Option<oneshot::Sender<BodyCopy>>,
}

impl Copying {
    /// One of a body with at most `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> (Self, oneshot::Receiver<BodyCopy>) {
        let (to, receiver) = oneshot::channel();
        (Self { bytes: BytesMut::new(), max_bytes, to: Some(to) }, receiver)
    }

    /// Takes in the next piece, unless the copy becomes too long with it.
    pub(super) fn add(&mut self, piece: &[u8]) {
        if self.bytes.len() + piece.len() > self.max_bytes {
            self.bytes = BytesMut::new();
            self.hand_over(BodyCopy::TooLong);
        } else if self.to.is_some() {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// The body is whole.
    pub(super) fn finish(&mut self) {
        let whole = std::mem::take(&mut self.bytes).freeze();
        self.hand_over(BodyCopy::Whole(whole));
    }

    fn hand_over(&mut self, copy: BodyCopy) {
        // Nobody may wait for it any more.
        let _ = self.to.take().map(|to| to.send(copy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(max_bytes: usize, pieces: &[&[u8]], whole: bool) -> Option<BodyCopy> {
        let (mut copying, mut receiver) = Copying::new(max_bytes);
        pieces.iter().for_each(|piece| copying.add(piece));
        if whole {
            copying.finish();
        }
        drop(copying);
        receiver.try_recv().ok()
    }

    #[test]
    fn a_copy_is_handed_over_whole_or_not_at_all() {
        assert_eq!(copied(5, &[b"ab", b"", b"cde"], true), Some(BodyCopy::Whole(Bytes::from("abcde"))));
        assert_eq!(copied(0, &[b""], true), Some(BodyCopy::Whole(Bytes::new())));
        assert_eq!(copied(5, &[b"ab", b"cdef"], false), Some(BodyCopy::TooLong));
        assert_eq!(copied(5, &[b"ab", b"cdef", b"g"], true), Some(BodyCopy::TooLong));
        assert_eq!(copied(5, &[b"ab"], false), None);
    }
}
