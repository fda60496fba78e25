//! What became of the requests, counted over true times with nothing of the limiter's, as the judge of the tests does.

use std::time::Duration;

use super::demand::Pattern;
use super::judge::{Limit, Span, refused_for_nothing};
use super::strategy::{Entry, STRATEGIES};
use super::world::LIMITS;

/// The counts of one strategy over all tokens of one pattern.
#[derive(Default)]
pub(crate) struct Verdict {
    requests: usize,
    admitted: usize,
    /// Of each limit: the most admissions in one window.
    most: [usize; 2],
    /// Of each limit: admissions beyond it.
    beyond: [usize; 2],
    /// Refused although every window had room.
    for_nothing: usize,
    extra_us: Vec<u64>,
}

fn limits() -> [Limit; 2] {
    LIMITS.map(|(count, window_ms)| Limit { count: count as usize, window: Duration::from_millis(window_ms.into()) })
}

impl Verdict {
    pub(crate) fn beyond(&self) -> usize {
        self.beyond.iter().sum()
    }

    /// Counts the requests of one token.
    pub(crate) fn add(&mut self, entries: &[Entry]) {
        let span = |entry: &Entry| {
            let at = Duration::from_micros(entry.decided_us);
            Span { from: at, to: at }
        };
        let (admitted, refused): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| entry.admitted);
        let admitted: Vec<Span> = admitted.into_iter().map(span).collect();
        let refused: Vec<(Span, usize)> = refused.into_iter().map(|entry| (span(entry), 1)).collect();
        for (at, limit) in limits().iter().enumerate() {
            self.beyond[at] += limit.unexplained(&admitted);
            self.most[at] = self.most[at].max(most(limit, &admitted));
        }
        self.for_nothing += refused_for_nothing(&limits(), &refused, &admitted).len();
        self.requests += entries.len();
        self.admitted += admitted.len();
        self.extra_us.extend(entries.iter().map(|entry| entry.extra_us));
    }

    /// Of the requests that an exact limiter would have granted after the same admissions, those that were refused, in percent.
    fn refused_percent(&self) -> f64 {
        100.0 * self.for_nothing as f64 / (self.admitted + self.for_nothing).max(1) as f64
    }
}

/// The most admissions in one window for certain, the error of the clocks taken off it.
fn most(limit: &Limit, admissions: &[Span]) -> usize {
    let mut times: Vec<Duration> = admissions.iter().map(|span| span.from).collect();
    times.sort_unstable();
    let window = limit.surely();
    let inside = |(entered, at): (usize, &Duration)| entered + 1 - times.partition_point(|time| *time + window <= *at);
    times.iter().enumerate().map(inside).max().unwrap_or(0)
}

/// The nearest-rank quantile in ms.
fn quantile_ms(sorted_us: &[u64], percent: usize) -> f64 {
    let rank = (sorted_us.len() * percent).div_ceil(100).max(1);
    sorted_us.get(rank - 1).map_or(0.0, |extra_us| *extra_us as f64 / 1_000.0)
}

/// Prints the table.
pub(crate) fn print(verdicts: &[[Verdict; Pattern::ALL.len()]], runs: u64, hours: u64) {
    let requests: usize = verdicts.first().map_or(0, |first| first.iter().map(|verdict| verdict.requests).sum());
    println!(
        "{runs} runs of {hours} h, {requests} requests for each strategy; limits {LIMITS:?} (count, window in ms)\n"
    );
    let patterns = Pattern::ALL.map(|pattern| format!("refused with room, {}", pattern.name())).join(" | ");
    println!(
        "| strategy | most in a minute | most in an hour | admitted beyond a limit | {patterns} | p50 ms | p99 ms |"
    );
    println!("|{}", " --- |".repeat(6 + Pattern::ALL.len()));
    for (strategy, verdicts) in STRATEGIES.iter().zip(verdicts) {
        let most: [usize; 2] =
            std::array::from_fn(|at| verdicts.iter().map(|verdict| verdict.most[at]).max().unwrap_or(0));
        let (beyond, admitted) = verdicts
            .iter()
            .fold((0, 0), |(beyond, admitted), verdict| (beyond + verdict.beyond(), admitted + verdict.admitted));
        let refused = verdicts
            .iter()
            .map(|verdict| format!("{:.1} %", verdict.refused_percent()))
            .collect::<Vec<_>>()
            .join(" | ");
        let mut extra_us: Vec<u64> = verdicts.iter().flat_map(|verdict| verdict.extra_us.iter().copied()).collect();
        extra_us.sort_unstable();
        let [p50, p99] = [50, 99].map(|percent| quantile_ms(&extra_us, percent));
        let [minute, hour] = most;
        println!(
            "| {} | {minute} | {hour} | {beyond} of {admitted} | {refused} | {p50:.0} | {p99:.0} |",
            strategy.name()
        );
    }
}
