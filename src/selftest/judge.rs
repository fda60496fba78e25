//! Whether a token was admitted exactly as often as its plan says: judged from what its deciders were told, without Redis.

use serde::Serialize;

/// Windows at least this long (ms) outlast the contest: nothing leaves them, so the lowest limit among them is the number
/// of admissions to expect.
pub(super) const OUTLASTS_MS: u32 = 60_000;

/// What the deciders of all instances were told about one token, times in ms on Redis's clock.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    /// When each admission was decided, and which place it was given in the longest window, from 1.
    pub(super) admitted: Vec<(u64, u32)>,
    /// When each refusal was decided.
    pub(super) refused: Vec<u64>,
    /// Decisions without an answer in time: Redis may or may not have counted them.
    pub(super) unanswered: u32,
}

impl History {
    /// Adds what another decider was told.
    pub(super) fn merge(&mut self, other: Self) {
        self.admitted.extend(other.admitted);
        self.refused.extend(other.refused);
        self.unanswered += other.unanswered;
    }
}

/// How one plan came out, over all of its tokens.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// The plan's limits, as a configuration writes them.
    pub(super) plan: String,
    pub(super) tokens: usize,
    pub(super) decisions: usize,
    /// Admissions that make the limits exactly full.
    pub(super) expected: usize,
    pub(super) admitted: usize,
    /// By how much the worst window of any token was overfull.
    pub(super) over: usize,
    /// Refusals while every window had room.
    pub(super) wrongly_refused: usize,
    /// Admissions whose place in the window was given twice or skipped one.
    pub(super) misplaced: usize,
    pub(super) unanswered: usize,
}

impl Verdict {
    pub(super) fn new(plan: String) -> Self {
        Self { plan, ..Self::default() }
    }

    /// Judges one more token of the plan, whose limits are pairs of count and window in ms.
    pub(super) fn add(&mut self, limits: &[(u32, u32)], mut history: History) {
        let lasting = limits.iter().filter(|(_, window_ms)| *window_ms >= OUTLASTS_MS);
        history.admitted.sort_unstable();
        let times: Vec<u64> = history.admitted.iter().map(|(at_ms, _)| *at_ms).collect();
        // All that were admitted in the same millisecond are inside: the last of them saw the others.
        let inside = |at_ms: u64, window_ms: u32| {
            let left = times.partition_point(|&time| time + u64::from(window_ms) <= at_ms);
            times.partition_point(|&time| time <= at_ms) - left
        };
        for &(count, window_ms) in limits {
            let fullest = times.iter().map(|&at_ms| inside(at_ms, window_ms)).max().unwrap_or(0);
            self.over = self.over.max(fullest.saturating_sub(count as usize));
        }
        let unanswered = history.unanswered as usize;
        let has_room =
            |at_ms| limits.iter().all(|&(count, window_ms)| inside(at_ms, window_ms) + unanswered < count as usize);
        self.wrongly_refused += history.refused.iter().filter(|&&at_ms| has_room(at_ms)).count();
        if unanswered == 0 {
            let mut places: Vec<u32> = history.admitted.iter().map(|(_, place)| *place).collect();
            places.sort_unstable();
            self.misplaced += (1..).zip(places).filter(|(right, place)| right != place).count();
        }
        self.tokens += 1;
        self.decisions += history.admitted.len() + history.refused.len() + unanswered;
        self.expected += lasting.map(|(count, _)| *count as usize).min().unwrap_or(0);
        self.admitted += history.admitted.len();
        self.unanswered += unanswered;
    }

    /// What is not as it must be, for people; empty if all is.
    pub(super) fn problems(&self) -> Vec<String> {
        let Self { plan, expected, admitted, over, wrongly_refused, misplaced, unanswered, .. } = self;
        let mut problems = Vec::new();
        if *over > 0 || admitted > expected {
            problems.push(format!(
                "{plan}: over-admitted: {admitted} requests where {expected} fit, a window overfull by up to {over}"
            ));
        }
        if admitted + unanswered < *expected {
            problems.push(format!("{plan}: only {admitted} requests of {expected} were admitted in the time given"));
        }
        if *wrongly_refused > 0 {
            problems.push(format!("{plan}: {wrongly_refused} requests were refused although every window had room"));
        }
        if *misplaced > 0 {
            problems.push(format!("{plan}: {misplaced} admissions did not get a place of their own in the window"));
        }
        if *unanswered > 0 {
            problems.push(format!("{plan}: {unanswered} decisions had no answer from Redis in time"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: [(u32, u32); 2] = [(2, 1_000), (4, 3_600_000)];

    /// Two at once, two more when those have left the second, and the hour is full.
    fn exact() -> History {
        let admitted = vec![(5_000, 1), (5_000, 2), (6_000, 3), (6_001, 4)];
        History { admitted, refused: vec![5_000, 5_999, 6_001, 9_000], unanswered: 0 }
    }

    fn judge(history: History) -> Verdict {
        let mut verdict = Verdict::new("p".to_owned());
        verdict.add(&LIMITS, history);
        verdict
    }

    fn sole_problem(history: History, about: &str) {
        let problems = judge(history).problems();
        assert!(problems.len() == 1 && problems[0].contains(about), "{problems:?}");
    }

    #[test]
    fn what_is_exact_has_no_problems() {
        let verdict = judge(exact());
        assert_eq!((verdict.expected, verdict.admitted, verdict.decisions), (4, 4, 8));
        assert!(verdict.problems().is_empty());
    }

    #[test]
    fn one_too_many_is_seen_in_either_window() {
        let mut history = exact();
        history.admitted.push((9_000, 5));
        assert_eq!(judge(history.clone()).over, 1);
        sole_problem(history, "over-admitted: 5 requests where 4 fit, a window overfull by up to 1");
        let mut history = exact();
        history.admitted[2].0 = 5_999;
        history.refused.clear();
        sole_problem(history, "over-admitted: 4 requests where 4 fit, a window overfull by up to 1");
    }

    #[test]
    fn one_too_few_is_seen() {
        let mut history = exact();
        history.admitted.pop();
        history.refused.retain(|&at| at < 6_000);
        sole_problem(history, "only 3 requests of 4");
    }

    #[test]
    fn a_refusal_while_there_is_room_is_seen() {
        let mut history = exact();
        history.refused.push(4_999);
        sole_problem(history, "1 requests were refused");
    }

    #[test]
    fn a_place_given_twice_is_seen() {
        let mut history = exact();
        history.admitted[1].1 = 1;
        sole_problem(history, "1 admissions did not get a place");
    }

    #[test]
    fn what_had_no_answer_is_told_and_may_have_counted() {
        let mut history = exact();
        history.admitted.remove(1);
        history.unanswered = 1;
        sole_problem(history, "1 decisions had no answer");
    }

    #[test]
    fn tokens_add_up() {
        let mut verdict = judge(exact());
        verdict.add(&LIMITS, exact());
        assert_eq!((verdict.tokens, verdict.expected, verdict.admitted, verdict.decisions), (2, 8, 8, 16));
        assert!(verdict.problems().is_empty());
    }
}
