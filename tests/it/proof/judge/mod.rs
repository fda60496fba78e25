//! Judges from outside whether a record of requests keeps a limit: all that is known of an admission is that it was decided
//! between its sending and its answer. Nothing of it is shared with the limiter.
//!
//! A verdict of "too many" is given only if it holds wherever in its span each admission really lies, and a verdict of "refused for
//! nothing" likewise; how much else would have been possible is told by the optimistic figures.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// Where on the run's clock something happened, the ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Duration,
    pub to: Duration,
}

/// At most `count` admissions in any `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub count: usize,
    pub window: Duration,
}

/// The limiters' clocks tick in milliseconds, and a sum of two is rounded down twice.
const TICK: Duration = Duration::from_millis(2);
/// A machine's clock is set right by up to 1/2000 of the time; the run's is not.
const SLEWED: u32 = 1_000;

impl Limit {
    /// The window, shortened by the error of the clocks: in doubt the limiter is right.
    pub fn surely(&self) -> Duration {
        self.window.saturating_sub(TICK + self.window / SLEWED)
    }

    fn possibly(&self) -> Duration {
        self.window + TICK + self.window / SLEWED
    }

    /// How many admissions no placement explains; more than 0 only if every placement of all admissions in their spans has
    /// more than `count` of them in some window.
    ///
    /// Wherever they lie, the k-th of them in time is not before the k-th beginning of a span, and not after the k-th end. So each is
    /// placed as early as its beginning, and the one `count` places before it, let it; if that is after its end, it is one too
    /// many.
    pub fn unexplained(&self, admissions: &[Span]) -> usize {
        let (from, to) = ends(admissions);
        let mut placed = Vec::with_capacity(from.len());
        for (from, to) in from.into_iter().zip(to) {
            let room = match placed.len().checked_sub(self.count) {
                None => Some(Duration::ZERO),
                Some(at) => placed.get(at).map(|leaves| *leaves + self.surely()),
            };
            match room.map(|room| room.max(from)).filter(|place| *place <= to) {
                Some(place) => placed.push(place),
                None => continue,
            }
        }
        admissions.len() - placed.len()
    }

    /// The most admissions that lie in one window for certain.
    pub fn most_surely(&self, admissions: &[Span]) -> usize {
        let mut spans = admissions.to_vec();
        spans.sort_by_key(|span| span.from);
        let inside = |at: usize| {
            let end = spans[at].from + self.surely();
            spans[at..].iter().take_while(|span| span.from < end).filter(|span| span.to < end).count()
        };
        (0..spans.len()).map(inside).max().unwrap_or(0)
    }

    /// The most admissions that may have lain in one window.
    pub fn most_possibly(&self, admissions: &[Span]) -> usize {
        let (from, to) = ends(admissions);
        // A window is fullest when one has just entered it.
        let inside =
            |(entered, at): (usize, &Duration)| entered + 1 - to.partition_point(|to| *to + self.possibly() <= *at);
        from.iter().enumerate().map(inside).max().unwrap_or(0)
    }

    /// Of these admissions, those that lie for certain in the window of `one` and were decided before it.
    pub fn surely_before(&self, one: Span, admissions: &[Span]) -> usize {
        let still_inside = |span: &&Span| span.to < one.from && span.from + self.surely() > one.to;
        admissions.iter().filter(still_inside).count()
    }
}

/// Of these refusals of requests that would have counted `cost`, those for which there was room in every window for certain.
/// `admissions` are all that may have been counted.
pub fn refused_for_nothing(limits: &[Limit], refusals: &[(Span, usize)], admissions: &[Span]) -> Vec<Span> {
    let (from, to) = ends(admissions);
    let has_room = |limit: &Limit, refusal: Span, cost: usize| {
        let begun = from.partition_point(|from| *from <= refusal.to);
        let over = to.partition_point(|to| *to + limit.possibly() <= refusal.from);
        begun - over + cost <= limit.count
    };
    let for_nothing = |(span, cost): &&(Span, usize)| limits.iter().all(|limit| has_room(limit, *span, *cost));
    refusals.iter().filter(for_nothing).map(|(span, _)| *span).collect()
}

/// The beginnings and the ends, each in order.
fn ends(spans: &[Span]) -> (Vec<Duration>, Vec<Duration>) {
    let (mut from, mut to): (Vec<_>, Vec<_>) = spans.iter().map(|span| (span.from, span.to)).unzip();
    from.sort();
    to.sort();
    (from, to)
}
