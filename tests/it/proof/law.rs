//! The properties that a run's record must have, whatever happened during the run.
//!
//! Redis, and each process by itself, is a book of admissions. What a book knows it never admits beyond; what happens to Redis only
//! decides what the books know. An event that makes Redis forget begins a new book. What a process admits by itself is known to
//! Redis before it decides on that process's next request for the token, and on all others' once all is merged.

use std::time::Duration;

use super::fleet::{By, Entry};
use super::judge::{Limit, Span, refused_for_nothing};

/// A question that was given up may be counted this long after Redis answers again.
const LATE: Duration = Duration::from_secs(2);

/// Redis lost admissions: a crash without persistence, or a failover to a replica that lagged behind.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// From before the old memory was gone until the new one served.
    pub span: Span,
    /// Admissions that were answered longer than this before the loss are still known.
    pub forgotten: Duration,
}

/// The events of a run.
#[derive(Debug, Default)]
pub struct Facts {
    /// Of each token.
    pub limits: Vec<Vec<Limit>>,
    /// When Redis did not answer, or not all, until all had noticed that it does again.
    pub outages: Vec<Span>,
    pub losses: Vec<Loss>,
    /// At some moment of each of these, no instance that was there had anything left to merge into Redis.
    pub merged: Vec<Span>,
    /// When each life began to end, if it did.
    pub ended: Vec<Option<Duration>>,
    /// How long Redis may take for an answer.
    pub deadline: Duration,
    /// While Redis does not answer, everything is admitted.
    pub allows_all: bool,
}

/// All breaches of the law, in words; none if all is well.
pub fn breaches(record: &[Entry], facts: &Facts) -> Vec<String> {
    let of_token = |token: usize| {
        let entries: Vec<&Entry> = record.iter().filter(|entry| entry.token == token).collect();
        let mut breaches = Vec::new();
        for limit in &facts.limits[token] {
            breaches.extend(redis_admits_too_many(*limit, &entries, &facts.losses));
            if !facts.allows_all {
                breaches.extend(admissions_beyond_known_ones(*limit, &entries, facts));
            }
        }
        breaches.extend(requests_refused_with_room(&facts.limits[token], &entries, facts));
        breaches.into_iter().map(move |breach| format!("token {token}: {breach}"))
    };
    (0..facts.limits.len()).flat_map(of_token).collect()
}

/// The admissions among these, each as often as it counts.
pub fn admissions<'a>(entries: impl IntoIterator<Item = &'a &'a Entry>) -> Vec<Span> {
    let admitted = entries.into_iter().filter(|entry| entry.is_admitted());
    admitted.flat_map(|entry| std::iter::repeat_n(entry.span, entry.cost)).collect()
}

/// Redis never admits more than it knows to be within the limit.
fn redis_admits_too_many(limit: Limit, entries: &[&Entry], losses: &[Loss]) -> Vec<String> {
    let by_redis: Vec<&Entry> = entries.iter().copied().filter(|entry| entry.by == Some(By::Redis)).collect();
    let total = |loss: &&Loss| loss.forgotten >= loss.span.from;
    // Between any two losses it knows everything.
    let whole = books(&by_redis, &losses.iter().collect::<Vec<_>>());
    // Over the lesser losses it knows all but what they cost.
    let is_known = |entry: &&Entry| {
        losses.iter().all(|loss| {
            let long_before = entry.span.to.saturating_add(loss.forgotten) < loss.span.from;
            total(&loss) || long_before || entry.span.from > loss.span.to
        })
    };
    let known: Vec<&Entry> = by_redis.into_iter().filter(is_known).collect();
    let over_losses = books(&known, &losses.iter().filter(total).collect::<Vec<_>>());
    let describe = |book: Vec<Span>| {
        let (over, of) = (limit.unexplained(&book), book.len());
        let (surely, possibly) = (limit.most_surely(&book), limit.most_possibly(&book));
        (over > 0).then(|| {
            format!(
                "Redis admitted {over} of {of} beyond {limit:?}: in one window at least {surely}, at most {possibly}"
            )
        })
    };
    whole.into_iter().chain(over_losses).filter_map(describe).collect()
}

/// The admissions between losses; what was under way at one belongs to neither side.
fn books(entries: &[&Entry], losses: &[&Loss]) -> Vec<Vec<Span>> {
    let mut from = Duration::ZERO;
    let mut books = Vec::new();
    for to in losses.iter().map(|loss| loss.span.from).chain([Duration::MAX]) {
        let inside: Vec<&Entry> =
            entries.iter().copied().filter(|entry| entry.span.from >= from && entry.span.to < to).collect();
        books.push(admissions(&inside));
        from = losses.get(books.len() - 1).map_or(to, |loss| loss.span.to);
    }
    books
}

/// Redis and each instance count all the admissions that they know.
fn admissions_beyond_known_ones(limit: Limit, entries: &[&Entry], facts: &Facts) -> Vec<String> {
    let admitted: Vec<&Entry> = entries.iter().copied().filter(|entry| entry.is_admitted()).collect();
    let is_over = |one: &&&Entry| {
        let known: Vec<&Entry> = admitted.iter().copied().filter(|other| facts.knows(one, other)).collect();
        limit.surely_before(one.span, &admissions(&known)) + one.cost > limit.count
    };
    let describe = |one: &&Entry| format!("{:?} admitted {:?} in life {} beyond {limit:?}", one.by, one.span, one.life);
    admitted.iter().filter(is_over).map(describe).collect()
}

impl Facts {
    /// Whether who decided on one request knew of another one, if that was admitted before.
    fn knows(&self, one: &Entry, other: &Entry) -> bool {
        let same = one.life == other.life;
        let last = self.losses.iter().rev().find(|loss| loss.span.from <= one.span.to);
        let (lost_from, lost_to) = last.map_or((Duration::ZERO, Duration::ZERO), |loss| (loss.span.from, loss.span.to));
        let ended = self.ended.get(other.life).copied().flatten().unwrap_or(Duration::MAX);
        let is_merged = |when: &Span| other.span.to < when.from && when.to < one.span.from.min(ended);
        match (one.by, other.by) {
            (Some(By::Local), _) => same,
            (Some(By::Redis), Some(By::Redis)) => other.span.from >= lost_to,
            (Some(By::Redis), Some(By::Local)) => {
                other.span.from >= lost_from && (same || self.merged.iter().any(is_merged))
            }
            _ => false,
        }
    }
}

/// No request is refused that has room, even if all the admissions count that Redis may know of.
fn requests_refused_with_room(limits: &[Limit], entries: &[&Entry], facts: &Facts) -> Vec<String> {
    let mut counted = Vec::new();
    for entry in entries {
        // It stands in Redis later than it was, by as long as Redis took to say what time it is.
        let late = if entry.by == Some(By::Local) { facts.deadline } else { Duration::ZERO };
        let span = Span { to: entry.span.to + late, ..entry.span };
        counted.extend(std::iter::repeat_n(span, if entry.is_admitted() { entry.cost } else { 0 }));
        let decided = entry.status.is_some() && matches!(entry.by, Some(By::Redis | By::DenyCache));
        if !decided {
            let heals =
                facts.outages.iter().filter(|outage| outage.from <= entry.span.to && outage.to >= entry.span.from);
            let to = heals.map(|outage| outage.to).max().unwrap_or(entry.span.to).max(entry.span.to) + LATE;
            counted.extend(std::iter::repeat_n(Span { from: entry.span.from, to }, entry.cost));
        }
    }
    let refusals = entries.iter().filter(|entry| entry.is_refused());
    let refusals: Vec<(Span, usize)> = refusals.map(|entry| (entry.span, entry.cost)).collect();
    let for_nothing = refused_for_nothing(limits, &refusals, &counted);
    for_nothing.iter().map(|span| format!("refused for nothing at {span:?}")).collect()
}
