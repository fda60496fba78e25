//! A copy of a body that passes: kept beside it, and handed over when the body has ended well.

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

/// What became of a copy. A body that breaks off hands over nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// All of it.
    Whole(Bytes),
    /// It is longer than what may be kept.
    TooLong,
}

/// A copy in the making. The bytes are copied, not shared: a few of them would keep the whole buffer alive that they were read into.
pub(super) struct Copying {
    bytes: BytesMut,
    most: usize,
    to: oneshot::Sender<Copied>,
}

impl Copying {
    /// One of a body with at most so many bytes.
    pub(super) fn new(most: usize) -> (Self, oneshot::Receiver<Copied>) {
        let (to, receiver) = oneshot::channel();
        (Self { bytes: BytesMut::new(), most, to }, receiver)
    }

    /// Takes in the next piece; `None` when it has become too long.
    pub(super) fn add(mut self: Box<Self>, piece: &[u8]) -> Option<Box<Self>> {
        if self.bytes.len() + piece.len() > self.most {
            // Nobody may wait for it any more.
            let _ = self.to.send(Copied::TooLong);
            return None;
        }
        self.bytes.extend_from_slice(piece);
        Some(self)
    }

    /// The body is whole.
    pub(super) fn finish(self) {
        let _ = self.to.send(Copied::Whole(self.bytes.freeze()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(most: usize, pieces: &[&[u8]], whole: bool) -> Option<Copied> {
        let (copying, mut receiver) = Copying::new(most);
        let copying = pieces.iter().try_fold(Box::new(copying), |copying, piece| copying.add(piece));
        if let Some(copying) = copying.filter(|_| whole) {
            copying.finish();
        }
        receiver.try_recv().ok()
    }

    #[test]
    fn a_copy_is_handed_over_whole_or_not_at_all() {
        assert_eq!(copied(5, &[b"ab", b"", b"cde"], true), Some(Copied::Whole(Bytes::from("abcde"))));
        assert_eq!(copied(0, &[b""], true), Some(Copied::Whole(Bytes::new())));
        assert_eq!(copied(5, &[b"ab", b"cdef"], false), Some(Copied::TooLong));
        assert_eq!(copied(5, &[b"ab"], false), None);
    }
}
