//! Answers to Callgate's own pings: they are taken out of what a side says, as the other side has asked for none.

use super::frames::{FIN, Frames, MASKED, PONG};

/// Bytes in a ping of Callgate's, chosen anew for each call: nobody else's pings look like that.
pub(super) const PAYLOAD: usize = 8;
/// Two bytes, four of mask, the payload.
const LONGEST: usize = 2 + 4 + PAYLOAD;

/// Follows what one side says, and holds back at most the beginning of what may be a pong for Callgate.
#[derive(Debug)]
pub(super) struct Pongs {
    payload: [u8; PAYLOAD],
    frames: Frames,
    held: [u8; LONGEST],
    length: usize,
    /// Before that there is nothing to look for.
    asked: bool,
}

impl Pongs {
    pub(super) fn new(payload: [u8; PAYLOAD]) -> Self {
        Self { payload, frames: Frames::default(), held: [0; LONGEST], length: 0, asked: false }
    }

    /// A ping has gone out.
    pub(super) fn asked(&mut self) {
        self.asked = true;
    }

    /// Takes the pongs out of what this side has just said; `None` when all of it is for the other side.
    pub(super) fn sift(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if !self.asked {
            self.frames.pass(bytes);
            return None;
        }
        let mut kept = Vec::with_capacity(bytes.len() + LONGEST);
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
            match self.look() {
                Look::Unclear => {}
                Look::Ours => self.length = 0,
                Look::Theirs => {
                    let held = &self.held[..std::mem::take(&mut self.length)];
                    self.frames.pass(held);
                    kept.extend(held);
                }
            }
        }
        Some(kept)
    }

    /// What is held back; it is nobody's when its sender has ended in the middle of it.
    fn look(&self) -> Look {
        let held = &self.held[..self.length];
        if held[0] != FIN | PONG || held.get(1).is_some_and(|second| usize::from(second & !MASKED) != PAYLOAD) {
            return Look::Theirs;
        }
        let Some(second) = held.get(1) else { return Look::Unclear };
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        if held.len() < 2 + mask + PAYLOAD {
            return Look::Unclear;
        }
        let (mask, payload) = held[2..].split_at(mask);
        let unmasked = payload.iter().enumerate().map(|(at, byte)| byte ^ mask.get(at % 4).copied().unwrap_or(0));
        if unmasked.eq(self.payload) { Look::Ours } else { Look::Theirs }
    }
}

enum Look {
    Unclear,
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
            let said: Vec<u8> = theirs.iter().flat_map(|frame| [&ours[..], frame, &ours].concat()).collect();
            for piece in 1..said.len() {
                let mut pongs = Pongs::new(*b"callgate");
                pongs.asked();
                let kept: Vec<u8> = said.chunks(piece).flat_map(|piece| pongs.sift(piece).unwrap()).collect();
                assert_eq!(kept, theirs.concat(), "{piece}");
            }
        }
    }

    #[test]
    fn before_the_first_ping_everything_passes() {
        let mut pongs = Pongs::new(*b"callgate");
        let said = frame(0x82, &[7; 100], None);
        assert!(pongs.sift(&frame(0x8a, b"callgate", None)).is_none());
        // Asked in the middle of a frame.
        assert!(pongs.sift(&said[..50]).is_none());
        pongs.asked();
        let rest = [&said[50..], &frame(0x8a, b"callgate", None)].concat();
        assert_eq!(pongs.sift(&rest).unwrap(), said[50..]);
    }
}
