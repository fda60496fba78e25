//! Removes the pongs that answer Callgate's own pings: the other side has not asked for them.

use super::frames::{FIN, FrameTracker, MASKED, PONG};

/// The length of the payload of Callgate's pings. It is random for each call, so that no other ping has it.
const PAYLOAD: usize = 8;
/// Two bytes, four of mask, the payload.
const MAX_PONG: usize = 2 + 4 + PAYLOAD;

/// Follows what one side sends, and holds back at most the beginning of what may be a pong for Callgate.
#[derive(Debug)]
pub(super) struct PongFilter {
    pub(super) payload: [u8; PAYLOAD],
    frames: FrameTracker,
    held: [u8; MAX_PONG],
    length: usize,
    /// Whether a ping was sent: before, there is nothing to remove.
    pub(super) pinged: bool,
}

impl PongFilter {
    pub(super) fn new(payload: [u8; PAYLOAD]) -> Self {
        Self { payload, frames: FrameTracker::default(), held: [0; MAX_PONG], length: 0, pinged: false }
    }

    /// Removes the pongs from what this side has just sent; `None` when all of it is for the other side.
    pub(super) fn filter(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.pinged {
            self.frames.pass(bytes);
            return None;
        }
        let mut kept = Vec::with_capacity(bytes.len() + MAX_PONG);
        let mut at = 0;
        while at < bytes.len() {
            if self.length == 0 && !self.frames.is_between() {
                let rest = self.frames.rest_of_frame(&bytes[at..]);
                self.frames.pass(&bytes[at..at + rest]);
                kept.extend(&bytes[at..at + rest]);
                at += rest;
                continue;
            }
            self.held[self.length] = bytes[at];
            self.length += 1;
            at += 1;
            match self.match_held() {
                PongMatch::Incomplete => {}
                PongMatch::Ours => self.length = 0,
                PongMatch::Theirs => {
                    let held = &self.held[..std::mem::take(&mut self.length)];
                    self.frames.pass(held);
                    kept.extend(held);
                }
            }
        }
        Some(kept)
    }

    /// Whether the held bytes are a pong for Callgate. If their sender ends in the middle of them, they are dropped.
    fn match_held(&self) -> PongMatch {
        let held = &self.held[..self.length];
        if held[0] != FIN | PONG || held.get(1).is_some_and(|second| usize::from(second & !MASKED) != PAYLOAD) {
            return PongMatch::Theirs;
        }
        let Some(second) = held.get(1) else { return PongMatch::Incomplete };
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        if held.len() < 2 + mask + PAYLOAD {
            return PongMatch::Incomplete;
        }
        let (mask, payload) = held[2..].split_at(mask);
        let unmasked = payload.iter().enumerate().map(|(at, byte)| byte ^ mask.get(at % 4).copied().unwrap_or(0));
        if unmasked.eq(self.payload) { PongMatch::Ours } else { PongMatch::Theirs }
    }
}

enum PongMatch {
    Incomplete,
    Ours,
    Theirs,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = vec![kind, payload.len() as u8 | mask.map_or(0, |_| MASKED)];
        bytes.extend(mask.into_iter().flatten());
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask.map_or(0, |mask| mask[at % 4])));
        bytes
    }

    #[test]
    fn only_pongs_with_our_payload_are_taken_out_however_they_are_cut() {
        for mask in [None, Some([1, 2, 3, 4])] {
            let ours = frame(0x8a, b"callgate", mask);
            let theirs = [
                frame(0x8a, b"callgatf", mask),
                frame(0x8a, b"", mask),
                frame(0x01, b"callgate", mask),
                frame(0x8a, b"callgate!", mask),
                // A payload that looks like a pong for us.
                frame(0x80, &ours, mask),
                frame(0x89, b"callgate", mask),
            ];
            let sent: Vec<u8> = theirs.iter().flat_map(|frame| [&ours[..], frame, &ours].concat()).collect();
            for piece in 1..sent.len() {
                let mut pongs = PongFilter::new(*b"callgate");
                pongs.pinged = true;
                let kept: Vec<u8> = sent.chunks(piece).flat_map(|piece| pongs.filter(piece).unwrap()).collect();
                assert_eq!(kept, theirs.concat(), "{piece}");
            }
        }
    }

    #[test]
    fn before_the_first_ping_everything_passes() {
        let mut pongs = PongFilter::new(*b"callgate");
        let sent = frame(0x82, &[7; 100], None);
        assert!(pongs.filter(&frame(0x8a, b"callgate", None)).is_none());
        // The ping is sent in the middle of a frame.
        assert!(pongs.filter(&sent[..50]).is_none());
        pongs.pinged = true;
        let rest = [&sent[50..], &frame(0x8a, b"callgate", None)].concat();
        assert_eq!(pongs.filter(&rest).unwrap(), sent[50..]);
    }
}
