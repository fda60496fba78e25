//! Finds where WebSocket frames end (RFC 6455 §5.2) in a stream of bytes: only there can Callgate send a frame of its own.

/// Follows the frames of one direction. It reads headers and counts payloads, and stores neither.
#[derive(Debug, Default)]
pub(super) struct FrameTracker {
    /// The beginning of an incomplete header.
    header: [u8; MAX_HEADER],
    header_length: usize,
    /// Missing bytes of the current frame's payload.
    payload_left: u64,
    /// Messages whose last frame has begun.
    pub(super) messages: u64,
    /// Pings that have begun.
    pub(super) pings: u64,
    /// Whether a Close frame has passed: no other may follow it.
    pub(super) closed: bool,
}

/// Two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x08;
pub(super) const PING: u8 = 0x09;
pub(super) const PONG: u8 = 0x0a;
pub(super) const FIN: u8 = 0x80;
pub(super) const MASKED: u8 = 0x80;
/// The longest payload of a control frame (§5.5).
const MAX_CONTROL_PAYLOAD: usize = 125;

impl FrameTracker {
    /// Counts bytes that are passed on.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = &bytes[taken..];
        }
    }

    /// How many of these bytes belong to the frame that has begun; 0 between two frames.
    pub(super) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut ahead = Self { header: self.header, ..*self };
        let mut taken = 0;
        while taken < bytes.len() && !ahead.is_between() {
            taken += ahead.step(&bytes[taken..]);
        }
        taken
    }

    /// Whether the last frame is complete and no other has begun.
    pub(super) fn is_between(&self) -> bool {
        self.header_length == 0 && self.payload_left == 0
    }

    /// Consumes at least one byte: one of a header, or all available ones of a payload.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload_left > 0 {
            let taken = usize::try_from(self.payload_left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.payload_left -= taken as u64;
            return taken;
        }
        self.header[self.header_length] = bytes[0];
        self.header_length += 1;
        if let Some(length) = payload_length(&self.header[..self.header_length]) {
            let opcode = self.header[0] & OPCODE;
            self.closed |= opcode == CLOSE;
            self.pings += u64::from(opcode == PING);
            // Only the last frame of a message has this bit. Control frames, from 8 on, may come between and belong to none.
            self.messages += u64::from(opcode < CLOSE && self.header[0] & FIN != 0);
            self.header_length = 0;
            self.payload_left = length;
        }
        1
    }
}

/// The length of a frame's payload, once its header is complete.
fn payload_length(header: &[u8]) -> Option<u64> {
    let second = *header.get(1)?;
    let short = second & !MASKED;
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & MASKED == 0 { 0 } else { 4 };
    if header.len() < 2 + extended + mask {
        return None;
    }
    let length = header[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    Some(if extended == 0 { short.into() } else { length })
}

/// A Close frame.
pub(super) fn close_frame(code: u16, reason: &str, masked: bool) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(MAX_CONTROL_PAYLOAD - 2)];
    control_frame(CLOSE, &[&code.to_be_bytes(), reason].concat(), masked)
}

/// A frame with at most 125 bytes. Clients must mask theirs (§5.3), so those to an upstream are masked.
pub(super) fn control_frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut frame = vec![FIN | opcode, payload.len() as u8];
    if !masked {
        frame.extend(payload);
        return frame;
    }
    frame[1] |= MASKED;
    let mut mask = [0; 4];
    fastrand::fill(&mut mask);
    frame.extend(mask);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mut bytes = vec![opcode];
        match length {
            0..126 => bytes.push(length as u8),
            126..65_536 => bytes.extend([&[126][..], &(length as u16).to_be_bytes()].concat()),
            _ => bytes.extend([&[127][..], &(length as u64).to_be_bytes()].concat()),
        }
        if masked {
            bytes[1] |= 0x80;
            bytes.extend([1, 2, 3, 4]);
        }
        // A payload that looks like frames.
        bytes.extend(std::iter::repeat_n(0x88, length));
        bytes
    }

    #[test]
    fn frames_end_where_they_do_however_they_are_cut() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 300, 65_535, 65_536, 70_000] {
                let bytes = frame(0x82, length, masked);
                for piece in [1, 2, 3, 7, 64, 1 << 20] {
                    let mut frames = FrameTracker::default();
                    let mut passed = 0;
                    for part in bytes.chunks(piece) {
                        assert_eq!(frames.is_between(), passed == 0, "{length} {piece}");
                        frames.pass(part);
                        passed += part.len();
                    }
                    assert!(frames.is_between() && !frames.closed, "{length} {piece}");
                }
            }
        }
    }

    #[test]
    fn the_rest_of_a_frame_ends_where_the_next_begins() {
        let two = [frame(0x01, 200, true), frame(0x00, 3, true)].concat();
        let mut frames = FrameTracker::default();
        assert_eq!(frames.rest_of_frame(&two), 0);
        for begun in [1, 3, 7, 100] {
            frames = FrameTracker::default();
            frames.pass(&two[..begun]);
            assert_eq!(frames.rest_of_frame(&two[begun..]), 208 - begun);
            assert_eq!(frames.rest_of_frame(&two[begun..begun + 1]), 1);
        }
        frames.pass(&two[100..208]);
        assert_eq!(frames.rest_of_frame(&two[208..]), 0);
    }

    #[test]
    fn messages_are_counted_by_their_last_frame_and_pings_separately() {
        // A text, a message of three fragments with a ping and a pong among them, an empty one.
        let kinds = [0x81, 0x02, 0x89, 0x00, 0x8a, 0x80, 0x82];
        let bytes: Vec<u8> = kinds.into_iter().flat_map(|kind| frame(kind, 5, true)).collect();
        let mut frames = FrameTracker::default();
        frames.pass(&bytes);
        assert_eq!((frames.messages, frames.pings), (3, 1));
        assert_eq!(control_frame(PING, b"12345678", false), b"\x89\x0812345678");
    }

    #[test]
    fn a_close_frame_is_seen_and_made() {
        for masked in [false, true] {
            let bytes = close_frame(1008, "no longer", masked);
            let mut frames = FrameTracker::default();
            frames.pass(&bytes);
            assert!(frames.closed && frames.is_between());
            assert_eq!(bytes.len(), if masked { 17 } else { 13 });
            let start = if masked { 6 } else { 2 };
            let mask = if masked { bytes[2..6].to_vec() } else { vec![0; 4] };
            let payload: Vec<u8> = bytes[start..].iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            assert_eq!(payload, [&1008_u16.to_be_bytes()[..], b"no longer"].concat());
        }
        assert_eq!(close_frame(1000, &"x".repeat(300), false).len(), 127);
    }
}
