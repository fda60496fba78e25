//! What became of the requests, counted over true times with nothing of the limiter's, as the judge of the tests does.

use std::time::Duration;

use super::demand::Pattern;
use super::judge::{Limit, Span, refused_for_nothing};
use super::strategy::{Entry, STRATEGIES, Strategy};
use super::world::LIMITS;

const PATTERNS: usize = Pattern::ALL.len();

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

    /// The median and the 99th percentile of what decisions take beyond one within the region, in ms.
    fn latencies(&self) -> String {
        let mut sorted_us = self.extra_us.clone();
        sorted_us.sort_unstable();
        let [p50, p99] = [50, 99].map(|percent| quantile_ms(&sorted_us, percent));
        format!("{p50:.0} / {p99:.0}")
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

/// Prints the tables.
pub(crate) fn print(verdicts: &[[Verdict; PATTERNS]], runs: u64, hours: u64) {
    let requests: usize = verdicts.first().map_or(0, |first| first.iter().map(|verdict| verdict.requests).sum());
    println!(
        "{runs} runs of {hours} h, {requests} requests for each strategy; limits {LIMITS:?} (count, window in ms)\n"
    );
    println!("| | most in a minute | most in an hour | beyond a limit | admitted, of what the home admits |");
    println!("| --- | --- | --- | --- | --- |");
    let admitted = |verdicts: &[Verdict]| verdicts.iter().map(|verdict| verdict.admitted).sum::<usize>();
    let exact = STRATEGIES.iter().zip(verdicts).find(|(strategy, _)| matches!(strategy, Strategy::HomeAsked));
    let exact = exact.map_or(0, |(_, verdicts)| admitted(verdicts)).max(1);
    for (strategy, verdicts) in STRATEGIES.iter().zip(verdicts) {
        let most = |at: usize| verdicts.iter().map(|verdict| verdict.most[at]).max().unwrap_or(0);
        let (minute, hour, admitted) = (most(0), most(1), admitted(verdicts));
        let beyond: usize = verdicts.iter().map(Verdict::beyond).sum();
        let percent = 100.0 * admitted as f64 / exact as f64;
        println!("| {} | {minute} | {hour} | {beyond} of {admitted} | {percent:.1} % |", strategy.name());
    }
    let columns = |of: &str| Pattern::ALL.map(|pattern| format!("{of}, {}", pattern.name())).join(" | ");
    println!("\n| | {} | {} |", columns("refused with room"), columns("extra p50 / p99 ms"));
    println!("|{}", " --- |".repeat(1 + 2 * PATTERNS));
    for (strategy, verdicts) in STRATEGIES.iter().zip(verdicts) {
        let cells = |cell: fn(&Verdict) -> String| verdicts.iter().map(cell).collect::<Vec<_>>().join(" | ");
        let refused = cells(|verdict| format!("{:.1} %", verdict.refused_percent()));
        println!("| {} | {refused} | {} |", strategy.name(), cells(Verdict::latencies));
    }
}
