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
    to: oneshot::Sender<BodyCopy>,
}

impl Copying {
    /// One of a body with at max_bytes so many bytes.
    pub(super) fn new(max_bytes: usize) -> (Self, oneshot::Receiver<BodyCopy>) {
        let (to, receiver) = oneshot::channel();
        (Self { bytes: BytesMut::new(), max_bytes, to }, receiver)
    }

    /// Takes in the next piece; `None` when it has become too long.
    pub(super) fn add(mut self: Box<Self>, piece: &[u8]) -> Option<Box<Self>> {
        if self.bytes.len() + piece.len() > self.max_bytes {
            // Nobody may wait for it any more.
            let _ = self.to.send(BodyCopy::TooLong);
            return None;
        }
        self.bytes.extend_from_slice(piece);
        Some(self)
    }

    /// The body is whole.
    pub(super) fn finish(self) {
        let _ = self.to.send(BodyCopy::Whole(self.bytes.freeze()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(max_bytes: usize, pieces: &[&[u8]], whole: bool) -> Option<BodyCopy> {
        let (copying, mut receiver) = Copying::new(max_bytes);
        let copying = pieces.iter().try_fold(Box::new(copying), |copying, piece| copying.add(piece));
        if let Some(copying) = copying.filter(|_| whole) {
            copying.finish();
        }
        receiver.try_recv().ok()
    }

    #[test]
    fn a_copy_is_handed_over_whole_or_not_at_all() {
        assert_eq!(copied(5, &[b"ab", b"", b"cde"], true), Some(BodyCopy::Whole(Bytes::from("abcde"))));
        assert_eq!(copied(0, &[b""], true), Some(BodyCopy::Whole(Bytes::new())));
        assert_eq!(copied(5, &[b"ab", b"cdef"], false), Some(BodyCopy::TooLong));
        assert_eq!(copied(5, &[b"ab"], false), None);
    }
}
