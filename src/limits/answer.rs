//! The decision script's answers, as bytes.

use smallvec::{SmallVec, smallvec};

use super::decision::{Decision, Source, WindowStatus};
use crate::config::Limit;

/// The first byte of an answer that denies because of open calls alone.
const TOO_MANY_CALLS: u8 = 255;

/// Reads the script's answer, which `decide.lua` describes; `None` if its length is wrong. `max_calls` is the number of calls
/// that may be open, for a request that opens one.
pub(super) fn read(bytes: &[u8], limits: &[Limit], cost: u32, max_calls: Option<u32>) -> Option<Decision> {
    if limits.is_empty() {
        return match bytes {
            [] => Some(Decision::uncounted(Source::Redis, 0)),
            [TOO_MANY_CALLS] => Some(Decision::new(false, Source::Redis, cost, 0, []).with_too_many_calls(max_calls?)),
            _ => None,
        };
    }
    let ([staged, time @ ..], rest) = bytes.split_first_chunk::<7>()?;
    let admitted = !matches!(*staged, 0 | TOO_MANY_CALLS);
    let (numbers, behind) = rest.split_at_checked(8 * limits.len())?;
    let number = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| numbers[4 * i + byte]));
    let opens = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| behind[4 * i + byte]));
    let time_ms = u48(time);
    // An admission ends with its stamp, and the clock if that is another time.
    let (newest, clock_ms) = match (admitted, behind.split_first_chunk::<4>()) {
        (false, _) if behind.len() == if cost > 1 { 4 * limits.len() } else { 0 } => (0, time_ms),
        (true, Some((newest, []))) => (u32::from_le_bytes(*newest), time_ms),
        (true, Some((newest, clock))) if clock.len() == 6 => (u32::from_le_bytes(*newest), u48(clock)),
        _ => return None,
    };
    let windows = limits.iter().enumerate().map(|(i, limit)| {
        let (used, second) = (number(2 * i), number(2 * i + 1));
        let window_ms = limit.window_ms.get();
        // The oldest stamp that counts, or else the wait itself.
        let frees_ms = match admitted {
            true => (time_ms + u64::from(window_ms)).saturating_sub(u64::from(newest.wrapping_sub(second))),
            false => time_ms + u64::from(second),
        };
        WindowStatus { used, limit: limit.count, window_ms, frees_ms }
    });
    let mut decision = Decision::new(admitted, Source::Redis, cost, clock_ms, windows);
    if !admitted && cost > 1 {
        decision = decision.until_slots_free((0..limits.len()).map(|i| time_ms + u64::from(opens(i))));
    }
    if *staged == TOO_MANY_CALLS {
        decision = decision.with_too_many_calls(max_calls?);
    }
    Some(decision)
}

/// Reads the answer of `pair.lua` in the same way: one on the plan's limits, one on the route's own.
pub(super) fn read_pair(
    bytes: &[u8],
    plan: &[Limit],
    own: &[Limit],
    cost: u32,
    max_calls: Option<u32>,
) -> Option<Decision> {
    let (&length, rest) = bytes.split_first()?;
    let (plan_bytes, own_bytes) = rest.split_at_checked(length.into())?;
    Some(read(plan_bytes, plan, cost, max_calls)?.and(read(own_bytes, own, cost, None)?))
}

/// When a request was counted in each of its logs, by the clock there (Unix ms), the plan's first; `None` if it was denied.
/// `is_pair`: the answer is that of `pair.lua`.
pub(super) fn counted_ms(bytes: &[u8], is_pair: bool) -> Option<SmallVec<[u64; 2]>> {
    let stamp = |bytes: &[u8]| match bytes.split_first_chunk::<7>()?.0 {
        [0 | TOO_MANY_CALLS, ..] => None,
        [_, time @ ..] => Some(u48(time)),
    };
    if !is_pair {
        return stamp(bytes).map(|stamp_ms| smallvec![stamp_ms]);
    }
    let (&length, rest) = bytes.split_first()?;
    let (plan, own) = rest.split_at_checked(length.into())?;
    let own = stamp(own)?;
    Some(stamp(plan).into_iter().chain([own]).collect())
}

/// 6 bytes, little-endian.
fn u48(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> [Limit; 1] {
        [Limit { name: "w".into(), count: 5, window_ms: 60_000.try_into().unwrap() }]
    }

    #[test]
    fn reads_an_admission() {
        let clock = 1_700_000_000_123u64.to_le_bytes();
        // The newest stamp has wrapped round, the oldest has not.
        let [oldest, newest] = [u32::MAX - 999, 9_000].map(u32::to_le_bytes);
        let front = [&[4], &clock[..6], &[3, 0, 0, 0], &oldest, &newest].concat();
        let decision = read(&front, &limits(), 1, None).unwrap();
        let expected = WindowStatus { used: 3, limit: 5, window_ms: 60_000, frees_ms: 1_700_000_050_123 };
        assert!(decision.admitted);
        assert_eq!(decision.windows(), [expected]);
        assert_eq!(decision.reported().unwrap().retry_after_s, 50);
        // The server's clock is two seconds behind.
        let behind = (1_700_000_000_123u64 - 2_000).to_le_bytes();
        let decision = read(&[&front, &behind[..6]].concat(), &limits(), 1, None).unwrap();
        assert_eq!(decision.windows(), [expected]);
        assert_eq!(decision.reported().unwrap().retry_after_s, 52);
    }

    #[test]
    fn reads_a_denial() {
        let clock = 1_700_000_000_123u64.to_le_bytes();
        let denied = [&[0], &clock[..6], &[3, 0, 0, 0], &[0x10, 0x27, 0, 0]].concat();
        assert!(read(&denied, &limits(), 3, None).is_none());
        let decision = read(&[&denied[..], &[0xe8, 3, 0, 0]].concat(), &limits(), 3, None).unwrap();
        let expected = WindowStatus { used: 3, limit: 5, window_ms: 60_000, frees_ms: 1_700_000_010_123 };
        assert!(!decision.admitted);
        assert_eq!(decision.windows(), [expected]);
    }

    #[test]
    fn reads_too_many_calls() {
        let clock = 1_700_000_000_123u64.to_le_bytes();
        let denied = [&[255], &clock[..6], &[3, 0, 0, 0], &[0x10, 0x27, 0, 0]].concat();
        let decision = read(&denied, &limits(), 1, Some(20)).unwrap();
        assert_eq!((decision.admitted, decision.too_many_calls), (false, Some(20)));
        assert_eq!(decision.reported().unwrap().remaining, 2);
        assert!(read(&denied, &limits(), 1, None).is_none());
        assert_eq!(read(&[255], &[], 1, Some(20)).unwrap().too_many_calls, Some(20));
        assert!(read(&[255], &[], 1, None).is_none() && read(&[0], &[], 1, Some(20)).is_none());
    }

    #[test]
    fn rejects_answers_of_another_length() {
        for (staged, right) in [(0, &[15][..]), (1, &[19, 25])] {
            for length in 1..40 {
                let mut bytes = vec![0; length];
                bytes[0] = staged;
                assert_eq!(read(&bytes, &limits(), 1, None).is_some(), right.contains(&length), "{staged} {length}");
            }
        }
        assert!(read(&[], &limits(), 1, None).is_none());
    }
}
