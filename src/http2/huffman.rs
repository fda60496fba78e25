//! The Huffman code of HPACK strings (RFC 7541 Appendix B). It is canonical: the lengths of the codes determine the codes.

/// The length of each byte's code, in bits.
const CODE_LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];
const MIN_LENGTH: usize = 5;
const MAX_LENGTH: usize = 30;

/// Codes of so many bits, which is most of them in texts, are found by one look.
const SHORT: usize = 8;

/// The bytes in the order of their codes, and for each length where its codes end.
struct Code {
    bytes: [u8; 256],
    ends: [End; MAX_LENGTH + 1],
    /// By the next bits: the byte, and the length of its code; 0 if that is longer.
    short: [(u8, u8); 1 << SHORT],
}

/// The end of the codes of one length.
#[derive(Clone, Copy)]
struct End {
    /// The first code that is longer, left-aligned in 32 bits.
    limit: u32,
    /// What to add to a code of this length for its place in `bytes`.
    offset: i64,
}

static CODE: Code = build();

const fn build() -> Code {
    let ends = [End { limit: 0, offset: 0 }; MAX_LENGTH + 1];
    let mut code = Code { bytes: [0; 256], ends, short: [(0, 0); 1 << SHORT] };
    let (mut length, mut next, mut place) = (MIN_LENGTH, 0_u32, 0);
    while length <= MAX_LENGTH {
        let offset = place as i64 - next as i64;
        let mut byte = 0;
        while byte < 256 {
            if CODE_LENGTHS[byte] as usize == length {
                code.bytes[place] = byte as u8;
                let mut spare = 0;
                while length <= SHORT && spare < 1 << (SHORT - length) {
                    code.short[(next as usize) << (SHORT - length) | spare] = (byte as u8, length as u8);
                    spare += 1;
                }
                place += 1;
                next += 1;
            }
            byte += 1;
        }
        code.ends[length] = End { limit: next << (32 - length), offset };
        next <<= 1;
        length += 1;
    }
    code
}

/// Decodes a string to the end of `out`; `false` when it is not a code of bytes, or not padded as the code asks (RFC 7541 §5.2).
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut bits, mut count) = (0_u64, 0);
    let mut rest = coded;
    loop {
        if count <= 32
            && let Some((four, behind)) = rest.split_first_chunk()
        {
            bits |= u64::from(u32::from_be_bytes(*four)) << (32 - count);
            (rest, count) = (behind, count + 32);
        }
        while count <= 32
            && let Some((byte, behind)) = rest.split_first()
        {
            bits |= u64::from(*byte) << (56 - count);
            (rest, count) = (behind, count + 8);
        }
        let window = (bits >> 32) as u32;
        let (byte, length) = match CODE.short[(window >> (32 - SHORT)) as usize] {
            (_, 0) => match long(window) {
                Some(found) => found,
                // All ones: padding.
                None => return is_padding(bits, count),
            },
            (byte, length) => (byte, u32::from(length)),
        };
        if length > count {
            return is_padding(bits, count);
        }
        out.push(byte);
        bits <<= length;
        count -= length;
    }
}

/// The byte of a code of more than [`SHORT`] bits, and how many these are; `None` for what begins no code.
fn long(window: u32) -> Option<(u8, u32)> {
    let length = (SHORT + 1..=MAX_LENGTH).find(|length| window < CODE.ends[*length].limit)?;
    let place = i64::from(window >> (32 - length)) + CODE.ends[length].offset;
    Some((CODE.bytes[usize::try_from(place).unwrap_or_default() & 0xff], length as u32))
}

/// Whether the last bits are padding: fewer than a byte, and all ones.
fn is_padding(bits: u64, count: u32) -> bool {
    count < 8 && bits.leading_ones() >= count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, &mut out).then_some(out)
    }

    #[test]
    fn examples_of_rfc_7541_are_decoded() {
        let samples: [(&[u8], &[u8]); 5] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], b"www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], b"no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], b"custom-value"),
            (&[0x64, 0x02], b"302"),
            (&[], b""),
        ];
        for (coded, text) in samples {
            assert_eq!(decoded(coded).as_deref(), Some(text));
        }
    }

    #[test]
    fn every_byte_is_decoded() {
        // The codes of two bytes with 30 and 28 bits, from the appendix, padded by ones.
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xf3]).as_deref(), Some(&b"\n"[..]));
        assert_eq!(decoded(&[0xff, 0xff, 0xfe, 0x2f]).as_deref(), Some(&b"\x02"[..]));
        let mut places: Vec<u8> = CODE.bytes.to_vec();
        places.sort_unstable();
        assert_eq!(places, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn wrong_padding_is_refused() {
        assert_eq!(decoded(&[0x1f]).as_deref(), Some(&b"a"[..]));
        assert_eq!(decoded(&[0x18]), None, "zeros");
        assert_eq!(decoded(&[0x1f, 0xff]), None, "a whole byte");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "the end of the string");
    }
}
