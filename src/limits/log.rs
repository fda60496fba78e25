//! The pure core of the in-memory limiter: one token's log of admissions, tested exactly against every window of a plan.
//!
//! It is the twin of `decide.lua` and behaves alike, answer by answer. Time is an argument.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::decision::{Decision, Source, WindowStatus, numbers};
use super::log_bytes::{DamagedLogs, read_u32, read_u64};
use crate::config::Limit;

/// A clock that is this much (ms) behind the newest stamp is a new clock: the log moves to it. If it is less, time stops
/// for this token until the clock has caught up.
pub(super) const JUMP_MS: u64 = 5_000;

/// No clock is later than this: times can be added without an overflow.
const MAX_MS: u64 = 1 << 50;

/// The smallest ring that is kept.
const SMALLEST_RING: u32 = 4;

/// The admissions of one token that its longest window remembers, 4 bytes each.
#[derive(Debug, Default)]
pub(super) struct AdmissionLog {
    /// The clock's reading at the newest stamp, Unix ms.
    pub(super) newest_ms: u64,
    /// In ms modulo 2³², newest first.
    stamps: VecDeque<u32>,
    /// Shortest first, as of the newest stamp. What is older than the stamps that the longest counts is forgotten.
    windows: SmallVec<[Window; 2]>,
    /// If a plan with a longer window used the log not long ago.
    kept: Option<Box<Kept>>,
    /// The largest limit of the plans that used the log.
    most: u32,
}

/// The longer window that a log is kept for while the plan at hand needs less: until none has asked for it for as long as it
/// is. It holds `most` stamps at most, all that a limit can ask for.
#[derive(Debug, Clone, Copy)]
struct Kept {
    window: Window,
    /// The stamp up to which it is known to have been in use; `None` if it was asked for since the newest one.
    seen: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    length_ms: u32,
    /// So many of the newest stamps are inside.
    count: u32,
}

/// What a clock's reading means for a log.
#[derive(Clone, Copy)]
struct Moment {
    /// The time that counts for this token, Unix ms: never before its newest stamp.
    now_ms: u64,
    /// From the newest stamp until then.
    elapsed_ms: u64,
}

impl AdmissionLog {
    /// Decides whether `cost` more requests may pass at `clock_ms` (Unix ms), all or none, and logs them if so: never unless
    /// `may_admit`. A denial writes nothing.
    pub(super) fn decide(&mut self, limits: &[Limit], cost: u32, clock_ms: u64, may_admit: bool) -> Decision {
        let moment = self.read_clock(clock_ms);
        let counts = self.counts(limits, moment.elapsed_ms);
        let admitted = may_admit && have_room(limits, &counts, cost);
        if admitted {
            self.write(limits, &counts, cost, moment);
        }
        if !admitted && let (Some(kept), Some(longest)) = (&mut self.kept, limits.last()) {
            kept.seen = kept.seen.filter(|_| longest.window_ms.get() < kept.window.length_ms);
        }
        let windows = limits.iter().zip(counts).map(|(limit, count)| {
            let (limit, window_ms) = numbers(limit);
            let used = if admitted { count + cost } else { count };
            let frees_ms = if cost > limit {
                moment.now_ms + u64::from(window_ms)
            } else if !admitted && !has_room(used, cost, limit) {
                self.leaves_ms(limit - cost + 1, window_ms)
            } else if used > 0 {
                self.leaves_ms(used, window_ms)
            } else {
                moment.now_ms
            };
            WindowStatus { used, limit, window_ms, frees_ms }
        });
        Decision::new(admitted, Source::Local, cost, clock_ms, windows)
    }

    /// The answer to a request of cost 1 at `clock_ms` (Unix ms) if it were denied, whether there is room or not. Changes
    /// nothing.
    pub(super) fn peek(&mut self, limits: &[Limit], clock_ms: u64) -> Decision {
        let (newest_ms, seen) = (self.newest_ms, self.kept.as_ref().map(|kept| kept.seen));
        let denial = self.decide(limits, 1, clock_ms, false);
        self.newest_ms = newest_ms;
        if let (Some(kept), Some(seen)) = (&mut self.kept, seen) {
            kept.seen = seen;
        }
        denial
    }

    /// Whether there is room for `cost` more requests at `clock_ms` (Unix ms).
    pub(super) fn has_room(&mut self, limits: &[Limit], cost: u32, clock_ms: u64) -> bool {
        let moment = self.read_clock(clock_ms);
        have_room(limits, &self.counts(limits, moment.elapsed_ms), cost)
    }

    /// Logs requests that Redis admitted.
    pub(super) fn record(&mut self, limits: &[Limit], cost: u32, clock_ms: u64) {
        let moment = self.read_clock(clock_ms);
        let counts = self.counts(limits, moment.elapsed_ms);
        self.write(limits, &counts, cost, moment);
    }

    /// Whether all that it remembers has left all windows.
    pub(super) fn is_expired(&self, clock_ms: u64) -> bool {
        self.longest().is_none_or(|longest| self.newest_ms + u64::from(longest.length_ms) <= clock_ms)
    }

    /// Appends it as bytes.
    pub(super) fn write_bytes(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.newest_ms.to_le_bytes());
        let windows = self.windows.iter().flat_map(|window| [window.length_ms, window.count]);
        let counts = [self.windows.len() as u32, self.stamps.len() as u32, self.most];
        // Nothing is kept; what is kept is in use; or it was until then.
        let kept: SmallVec<[u32; 4]> = match self.kept.as_deref() {
            None => SmallVec::from_slice(&[0]),
            Some(Kept { window, seen: None }) => SmallVec::from_slice(&[1, window.length_ms, window.count]),
            Some(Kept { window, seen: Some(seen) }) => {
                SmallVec::from_slice(&[2, window.length_ms, window.count, *seen])
            }
        };
        for number in counts.into_iter().chain(kept).chain(windows).chain(self.stamps.iter().copied()) {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Reads it, and leaves what follows in `bytes`.
    pub(super) fn read_bytes(bytes: &mut &[u8]) -> Result<Self, DamagedLogs> {
        let newest_ms = read_u64(bytes)?;
        let (windows, stamps, most) = (read_u32(bytes)?, read_u32(bytes)?, read_u32(bytes)?);
        let window = |bytes: &mut &[u8]| Ok(Window { length_ms: read_u32(bytes)?, count: read_u32(bytes)? });
        let kept = match read_u32(bytes)? {
            0 => None,
            1 => Some(Kept { window: window(bytes)?, seen: None }),
            2 => Some(Kept { window: window(bytes)?, seen: Some(read_u32(bytes)?) }),
            _ => return Err(DamagedLogs),
        };
        let windows = (0..windows).map(|_| window(bytes)).collect::<Result<SmallVec<[Window; 2]>, _>>()?;
        // Every window counts stamps that are there, the longest one all of them.
        let longest = kept.map(|kept| kept.window).or_else(|| windows.last().copied());
        let counted = longest.map_or(0, |longest| longest.count);
        let is_empty = stamps == 0 && !windows.is_empty();
        if is_empty || counted > stamps || windows.iter().any(|window| window.count > counted) || newest_ms > MAX_MS {
            return Err(DamagedLogs);
        }
        let stamps = (0..stamps).map(|_| read_u32(bytes)).collect::<Result<_, _>>()?;
        Ok(Self { newest_ms, stamps, windows, kept: kept.map(Box::new), most })
    }

    fn read_clock(&mut self, clock_ms: u64) -> Moment {
        if self.newest_ms > clock_ms + JUMP_MS {
            self.newest_ms = clock_ms;
        }
        let now_ms = clock_ms.max(self.newest_ms);
        // A log without a stamp has no newest one to be older than.
        let elapsed_ms = if self.windows.is_empty() { 0 } else { now_ms - self.newest_ms };
        Moment { now_ms, elapsed_ms }
    }

    /// The window that counts all stamps.
    fn longest(&self) -> Option<Window> {
        self.kept.as_ref().map(|kept| kept.window).or_else(|| self.windows.last().copied())
    }

    /// How many stamps lie in each of the windows, exactly.
    fn counts(&self, limits: &[Limit], elapsed_ms: u64) -> SmallVec<[u32; 2]> {
        let longest = self.longest();
        let held = longest.map_or(0, |longest| longest.count);
        let count = |(i, limit): (usize, &Limit)| {
            let length_ms = limit.window_ms.get();
            let is_same = |window: &&Window| window.length_ms == length_ms;
            let known = self.windows.get(i).filter(is_same).or_else(|| self.windows.iter().find(is_same));
            self.recount(known.map_or(held, |window| window.count), u64::from(length_ms), elapsed_ms)
        };
        limits.iter().enumerate().map(count).collect()
    }

    /// How many of the `count` newest stamps lie inside a window: usually all; otherwise a few steps from the old end, then
    /// bisection, find the oldest that does.
    fn recount(&self, count: u32, length_ms: u64, elapsed_ms: u64) -> u32 {
        let is_inside = |i: u32| elapsed_ms + u64::from(self.age(i)) < length_ms;
        if count == 0 || is_inside(count) {
            return count;
        }
        if elapsed_ms >= length_ms {
            return 0;
        }
        let (mut low, mut high, mut step) = (1, count, 1);
        while high - step > low && !is_inside(high - step) {
            high -= step;
            step = (step * 2).min(high - 1);
        }
        low = low.max(high.saturating_sub(step));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if is_inside(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The i-th newest stamp, from 1.
    fn stamp(&self, i: u32) -> u32 {
        self.stamps[i as usize - 1]
    }

    /// How much older than the newest stamp the i-th newest is, in ms.
    fn age(&self, i: u32) -> u32 {
        self.stamp(1).wrapping_sub(self.stamp(i))
    }

    /// When the i-th newest stamp leaves a window, Unix ms.
    fn leaves_ms(&self, i: u32, window_ms: u32) -> u64 {
        // A clock near zero can be younger than its oldest stamp.
        (self.newest_ms + u64::from(window_ms)).saturating_sub(u64::from(self.age(i)))
    }

    /// Whether a longer window was asked for within its own length.
    fn is_in_use(&self, kept: &Kept, elapsed_ms: u64) -> bool {
        let unused_ms = kept.seen.map_or(0, |seen| u64::from(self.stamp(1).wrapping_sub(seen)) + elapsed_ms);
        unused_ms < u64::from(kept.window.length_ms)
    }

    fn write(&mut self, limits: &[Limit], counts: &[u32], cost: u32, moment: Moment) {
        let (Some(&count), Some(longest)) = (counts.last(), limits.last()) else { return };
        let stamp = match self.windows.is_empty() {
            true => moment.now_ms as u32,
            false => self.stamp(1).wrapping_add(moment.elapsed_ms as u32),
        };
        let largest = limits.iter().map(|limit| limit.count).max().unwrap_or(0);
        let in_use = self.kept.as_deref().filter(|kept| self.is_in_use(kept, moment.elapsed_ms)).copied();
        let is_over = self.kept.is_some() && in_use.is_none();
        // The plan that wrote it last may have been denied since.
        let in_use = in_use.or(self.windows.last().map(|last| Kept { window: *last, seen: None }));
        let kept = in_use.filter(|kept| kept.window.length_ms > longest.window_ms.get());
        self.most = if is_over && kept.is_none() { largest } else { self.most.max(largest) };
        let kept = kept.map(|Kept { window: Window { length_ms, count: held }, seen }| {
            let inside = self.recount(held, length_ms.into(), moment.elapsed_ms);
            let count = (inside + cost).min(self.most.max(count + cost));
            Kept { window: Window { length_ms, count }, seen: seen.or(Some(stamp)) }
        });
        let remembered = kept.map_or(count, |kept| kept.window.count - cost);
        match (&mut self.kept, kept) {
            (Some(known), Some(kept)) => **known = kept,
            (known, kept) => *known = kept.map(Box::new),
        }
        self.stamps.truncate(remembered as usize);
        self.make_room(cost, self.most);
        (0..cost).for_each(|_| self.stamps.push_front(stamp));
        self.newest_ms = moment.now_ms;
        let windows = limits.iter().zip(counts);
        let grown = windows.map(|(limit, count)| Window { length_ms: limit.window_ms.get(), count: count + cost });
        if self.windows.len() == limits.len() {
            self.windows.iter_mut().zip(grown).for_each(|(window, grown)| *window = grown);
        } else {
            self.windows = grown.collect();
        }
    }

    /// Sees to room for `cost` more stamps, and not much more than that. No plan ever admits more than `most`.
    fn make_room(&mut self, cost: u32, most: u32) {
        let needed = self.stamps.len() as u32 + cost;
        let slots = self.stamps.capacity() as u32;
        if needed <= slots && (slots <= 4 * SMALLEST_RING || needed > slots / 4) {
            return;
        }
        let roomy = (needed + needed / 4).next_multiple_of(SMALLEST_RING);
        let mut stamps = VecDeque::with_capacity(roomy.min(most.max(needed)) as usize);
        stamps.extend(&self.stamps);
        self.stamps = stamps;
    }
}

fn have_room(limits: &[Limit], counts: &[u32], cost: u32) -> bool {
    limits.iter().zip(counts).all(|(limit, count)| has_room(*count, cost, limit.count))
}

fn has_room(count: u32, cost: u32, limit: u32) -> bool {
    u64::from(count) + u64::from(cost) <= u64::from(limit)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// Bytes of a log after so many admissions, a millisecond apart.
    fn bytes(limits: &[Limit], admissions: u64) -> usize {
        let mut log = AdmissionLog::default();
        for ms in 0..admissions {
            assert!(log.decide(limits, 1, 1_700_000_000_000 + ms, true).admitted);
        }
        size_of::<AdmissionLog>() + 4 * log.stamps.capacity()
    }

    #[test]
    fn a_log_takes_four_bytes_an_admission_and_a_little() {
        let limit = |count, window_ms| Limit {
            name: "w".into(),
            count,
            window_ms: NonZeroU32::new(window_ms).expect("a window is not empty"),
        };
        let usual = [limit(1_000, 60_000), limit(1_000, 3_600_000)];
        let measured = [1, 5, 60, 1_000].map(|admissions| bytes(&usual, admissions));
        for (bytes, most) in measured.iter().zip([160, 160, 420, 4_400]) {
            assert!(*bytes <= most, "{measured:?}");
        }
        let enterprise = [limit(100_000, 60_000), limit(100_000, 3_600_000)];
        let measured = bytes(&enterprise, 100_000);
        assert!(measured <= 525_000, "{measured}");
    }

    #[test]
    fn a_log_shrinks_when_its_token_calms_down() {
        let limits = [Limit { name: "w".into(), count: 2_000, window_ms: NonZeroU32::new(10_000).expect("not 0") }];
        let mut log = AdmissionLog::default();
        for i in 0..2_000 {
            log.decide(&limits, 1, 1_700_000_000_000 + i, true);
        }
        assert!(log.stamps.capacity() >= 2_000);
        for i in 0..20 {
            log.decide(&limits, 1, 1_700_000_020_000 + 1_000 * i, true);
        }
        assert!(log.stamps.capacity() <= 64, "{}", log.stamps.capacity());
    }
}
