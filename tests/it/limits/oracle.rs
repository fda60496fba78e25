//! The specification of the limiter as plain code: a list of time stamps, searched from end to end.

/// A clock further behind than this is a new clock.
const JUMP_MS: i64 = 5_000;

/// One token.
#[derive(Clone, Default)]
pub(super) struct Oracle {
    /// When requests were admitted, in ms, in order.
    admissions: Vec<i64>,
    /// The longest window of the plan at the last admission, in ms.
    longest: i64,
    /// A longer one, in ms, that another plan asked for, and when it was asked for last; `None`: since the last admission.
    kept: Option<(i64, Option<i64>)>,
    /// The largest limit of all plans.
    most: usize,
    /// It never forgets anything.
    keeps_all: bool,
}

/// The right answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) admitted: bool,
    /// Per limit: used, limit, window, when it frees.
    pub(super) windows: Vec<(u32, u32, u32, i64)>,
    /// Place, limit, remaining, reset (s), retry after (s).
    pub(super) reported: Option<(usize, u32, u32, i64, i64)>,
}

impl Oracle {
    /// One with all the memory that it needs.
    pub(super) fn that_keeps_all() -> Self {
        Self { keeps_all: true, ..Self::default() }
    }

    /// All admissions that it remembers.
    pub(super) fn admissions(&self) -> &[i64] {
        &self.admissions
    }

    /// `limits`: pairs of count and window in ms, shortest first.
    pub(super) fn decide(&mut self, limits: &[(u32, u32)], cost: u32, clock: i64) -> Expected {
        Self::decide_on(&mut [(self, limits)], cost, clock)
    }

    /// One decision on several logs, each with limits of its own: admitted if all of them have room.
    pub(super) fn decide_on(logs: &mut [(&mut Self, &[(u32, u32)])], cost: u32, clock: i64) -> Expected {
        let (mut times, mut refusing) = (vec![], vec![]);
        for (log, limits) in logs.iter_mut() {
            // Where nothing is limited, nothing is looked at.
            let now = if limits.is_empty() { clock } else { log.time(clock) };
            refusing
                .push(limits.iter().map(|&(limit, window)| log.used(window, now) + cost > limit).collect::<Vec<_>>());
            times.push(now);
        }
        let admitted = !refusing.concat().contains(&true);
        let mut windows = vec![];
        for (((log, limits), refusing), &now) in logs.iter_mut().zip(&refusing).zip(&times) {
            if admitted {
                log.admit(limits, cost, now);
            } else if let (Some((span, seen)), Some((_, longest))) = (&mut log.kept, limits.last())
                && i64::from(*longest) >= *span
            {
                *seen = None;
            }
            windows.extend(log.windows(limits, refusing, cost, now));
        }
        let reported = reported_window(&windows, &refusing.concat(), clock);
        Expected { admitted, windows, reported }
    }

    fn admit(&mut self, limits: &[(u32, u32)], cost: u32, now: i64) {
        let Some(longest) = limits.iter().map(|(_, window)| i64::from(*window)).max() else { return };
        let largest = limits.iter().map(|(limit, _)| *limit as usize).max().unwrap();
        // What some plan asked for within its own length, or else the plan before this one.
        let kept = self.kept.filter(|(span, seen)| now - seen.unwrap_or(now) < *span);
        let is_over = self.kept.is_some() && kept.is_none();
        let (span, seen) = kept.unwrap_or((self.longest, None));
        self.kept = (span > longest).then(|| (span, seen.or(Some(now))));
        self.most = if is_over && self.kept.is_none() { largest } else { self.most.max(largest) };
        self.longest = longest;
        self.admissions.extend((0..cost).map(|_| now));
        if self.keeps_all {
            return;
        }
        let span = self.kept.map_or(longest, |(span, _)| span);
        self.admissions.retain(|at| *at > now - span);
        if self.kept.is_some() {
            self.admissions.drain(..self.admissions.len().saturating_sub(self.most));
        }
    }

    /// The time that counts for this log. A clock that is far behind is a new one.
    pub(super) fn time(&mut self, clock: i64) -> i64 {
        let newest = self.admissions.last().copied().unwrap_or(clock);
        if clock < newest - JUMP_MS {
            self.admissions.iter_mut().for_each(|at| *at -= newest - clock);
            self.kept = self.kept.map(|(span, seen)| (span, seen.map(|at| at - (newest - clock))));
            return clock;
        }
        clock.max(newest)
    }

    fn windows(&self, limits: &[(u32, u32)], refusing: &[bool], cost: u32, now: i64) -> Vec<(u32, u32, u32, i64)> {
        let window = |(&(limit, window), &refuses): (&(u32, u32), &bool)| {
            let frees = match refuses {
                true if cost > limit => now + i64::from(window),
                true => {
                    let mut ends = self.admissions.iter().map(|at| at + i64::from(window)).filter(|end| *end > now);
                    ends.find(|&end| self.used(window, end) + cost <= limit).unwrap()
                }
                false => {
                    let seen = self.admissions.iter().find(|at| **at > now - i64::from(window));
                    seen.map_or(now, |at| at + i64::from(window))
                }
            };
            (self.used(window, now), limit, window, frees)
        };
        limits.iter().zip(refusing).map(window).collect()
    }

    /// Adds what was admitted elsewhere, `ages` ms ago, under a plan of these limits. Answers how many count.
    pub(super) fn merge(&mut self, limits: &[(u32, u32)], ages: &[i64], clock: i64) -> i64 {
        let mut merged = if self.admissions.is_empty() { Self::default() } else { self.clone() };
        let (longest, span) = (i64::from(limits.last().unwrap().1), merged.kept.map(|(span, _)| span));
        merged.most = merged.most.max(limits.iter().map(|(limit, _)| *limit as usize).max().unwrap());
        if longest > span.unwrap_or(merged.longest) {
            (merged.longest, merged.kept) = (longest, None);
        }
        merged.kept = merged.kept.map(|(span, _)| (span, None));
        let longest = merged.kept.map_or(merged.longest, |(span, _)| span);
        let now = merged.time(clock);
        let fresh: Vec<i64> = ages.iter().map(|age| clock - age).filter(|at| *at > now - longest).collect();
        if !fresh.is_empty() {
            merged.admissions.extend(&fresh);
            merged.admissions.sort_unstable();
            let newest = merged.admissions[merged.admissions.len() - 1];
            merged.admissions.retain(|at| *at > newest - longest);
            *self = merged;
        }
        fresh.len() as i64
    }

    /// The numbers that `limits peek` has to show per limit: used, limit, when a slot is free (s), and in how many s.
    pub(super) fn peek(&self, limits: &[(u32, u32)], clock: i64) -> Vec<(u32, u32, i64, i64)> {
        let newest = self.admissions.last().copied().unwrap_or(clock);
        let behind = newest - clock;
        let moved = if behind > JUMP_MS { behind } else { 0 };
        let seen = Oracle { admissions: self.admissions.iter().map(|at| at - moved).collect(), ..Self::default() };
        let now = clock.max(newest - moved);
        let look = |&(limit, window): &(u32, u32)| {
            let used = seen.used(window, now);
            let mut ends = seen.admissions.iter().map(|at| at + i64::from(window)).filter(|end| *end > now);
            let next = match limit {
                0 => now + i64::from(window),
                _ if used < limit => clock,
                _ => ends.find(|&end| seen.used(window, end) < limit).unwrap(),
            };
            (used, limit, (next as f64 / 1000.0).ceil() as i64, ((next - clock) as f64 / 1000.0).ceil() as i64)
        };
        limits.iter().map(look).collect()
    }

    fn used(&self, window: u32, at: i64) -> u32 {
        self.admissions.iter().filter(|stamp| **stamp > at - i64::from(window) && **stamp <= at).count() as u32
    }
}

/// The window that the client is told about.
fn reported_window(
    windows: &[(u32, u32, u32, i64)],
    refusing: &[bool],
    clock: i64,
) -> Option<(usize, u32, u32, i64, i64)> {
    let mut best: Option<(usize, u32, i64)> = None;
    for (i, &(used, limit, _, frees)) in windows.iter().enumerate() {
        if refusing.contains(&true) && !refusing[i] {
            continue;
        }
        let room = limit.saturating_sub(used);
        let better = match best {
            None => true,
            Some((_, _, other_frees)) if refusing[i] => frees >= other_frees,
            Some((_, other_room, other_frees)) => room < other_room || room == other_room && frees >= other_frees,
        };
        if better {
            best = Some((i, room, frees));
        }
    }
    best.map(|(i, room, frees)| {
        let reset = (frees as f64 / 1000.0).ceil() as i64;
        let retry = ((frees - clock) as f64 / 1000.0).ceil() as i64;
        (i, windows[i].1, room, reset, if retry < 1 { 1 } else { retry })
    })
}
