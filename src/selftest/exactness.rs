//! Whether tokens were admitted exactly as often as their plan allows, computed from the decisions, without Redis.

use serde::Serialize;

/// Windows at least this long outlast the test: no admission leaves them, so the lowest limit among them is the number
/// of admissions to expect.
pub(super) const LASTING_WINDOW_MS: u32 = 60_000;

/// The decisions of all instances on one token, times in ms on Redis's clock.
#[derive(Debug, Default, Clone)]
pub(super) struct TokenHistory {
    /// The time of each admission, and its position in the longest window, from 1.
    pub(super) admitted: Vec<(u64, u32)>,
    /// The time of each denial.
    pub(super) refused: Vec<u64>,
    /// Decisions without an answer in time. Redis may have counted them.
    pub(super) unanswered: u32,
}

impl TokenHistory {
    pub(super) fn merge(&mut self, other: Self) {
        self.admitted.extend(other.admitted);
        self.refused.extend(other.refused);
        self.unanswered += other.unanswered;
    }
}

/// The result of one plan, over all of its tokens.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PlanResult {
    /// Its limits, as a configuration writes them.
    pub(super) plan: String,
    pub(super) tokens: usize,
    pub(super) decisions: usize,
    /// Admissions that fill the limits exactly.
    pub(super) expected: usize,
    pub(super) admitted: usize,
    /// Admissions above the limit in the worst window of any token.
    pub(super) over: usize,
    /// Denials while no window was full.
    pub(super) wrongly_refused: usize,
    /// Admissions whose position in the window was given twice or left a gap.
    pub(super) misplaced: usize,
    pub(super) unanswered: usize,
}

impl PlanResult {
    pub(super) fn new(plan: String) -> Self {
        Self { plan, ..Self::default() }
    }

    /// Adds a token of the plan. `limits` are pairs of count and window in ms.
    pub(super) fn add(&mut self, limits: &[(u32, u32)], mut history: TokenHistory) {
        let lasting = limits.iter().filter(|(_, window_ms)| *window_ms >= LASTING_WINDOW_MS);
        history.admitted.sort_unstable();
        let times: Vec<u64> = history.admitted.iter().map(|(at_ms, _)| *at_ms).collect();
        // Admissions of the same millisecond count too: the last of them saw the others.
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
            let mut positions: Vec<u32> = history.admitted.iter().map(|(_, position)| *position).collect();
            positions.sort_unstable();
            self.misplaced += (1..).zip(positions).filter(|(expected, position)| expected != position).count();
        }
        self.tokens += 1;
        self.decisions += history.admitted.len() + history.refused.len() + unanswered;
        self.expected += lasting.map(|(count, _)| *count as usize).min().unwrap_or(0);
        self.admitted += history.admitted.len();
        self.unanswered += unanswered;
    }

    /// What is wrong, in sentences; empty if nothing is.
    pub(super) fn problems(&self) -> Vec<String> {
        let Self { plan, expected, admitted, over, wrongly_refused, misplaced, unanswered, .. } = self;
        let mut problems = Vec::new();
        if *over > 0 || admitted > expected {
            problems.push(format!(
                "{plan}: over-admitted: {admitted} requests where {expected} fit, up to {over} too many in a window"
            ));
        }
        if admitted + unanswered < *expected {
            problems.push(format!("{plan}: only {admitted} of {expected} requests were admitted in time"));
        }
        if *wrongly_refused > 0 {
            problems.push(format!("{plan}: {wrongly_refused} requests were denied although no window was full"));
        }
        if *misplaced > 0 {
            problems.push(format!("{plan}: {misplaced} admissions did not get a position of their own in the window"));
        }
        if *unanswered > 0 {
            problems.push(format!("{plan}: Redis did not answer {unanswered} decisions in time"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: [(u32, u32); 2] = [(2, 1_000), (4, 3_600_000)];

    /// Two at once, two more when those have left the second, and the hour is full.
    fn exact() -> TokenHistory {
        let admitted = vec![(5_000, 1), (5_000, 2), (6_000, 3), (6_001, 4)];
        TokenHistory { admitted, refused: vec![5_000, 5_999, 6_001, 9_000], unanswered: 0 }
    }

    fn evaluate(history: TokenHistory) -> PlanResult {
        let mut result = PlanResult::new("p".to_owned());
        result.add(&LIMITS, history);
        result
    }

    fn sole_problem(history: TokenHistory, about: &str) {
        let problems = evaluate(history).problems();
        assert!(problems.len() == 1 && problems[0].contains(about), "{problems:?}");
    }

    #[test]
    fn exact_admissions_have_no_problems() {
        let result = evaluate(exact());
        assert_eq!((result.expected, result.admitted, result.decisions), (4, 4, 8));
        assert!(result.problems().is_empty());
    }

    #[test]
    fn one_admission_too_many_is_found_in_either_window() {
        let mut history = exact();
        history.admitted.push((9_000, 5));
        assert_eq!(evaluate(history.clone()).over, 1);
        sole_problem(history, "over-admitted: 5 requests where 4 fit, up to 1 too many in a window");
        let mut history = exact();
        history.admitted[2].0 = 5_999;
        history.refused.clear();
        sole_problem(history, "over-admitted: 4 requests where 4 fit, up to 1 too many in a window");
    }

    #[test]
    fn one_admission_too_few_is_found() {
        let mut history = exact();
        history.admitted.pop();
        history.refused.retain(|&at| at < 6_000);
        sole_problem(history, "only 3 of 4 requests");
    }

    #[test]
    fn a_denial_while_no_window_is_full_is_found() {
        let mut history = exact();
        history.refused.push(4_999);
        sole_problem(history, "1 requests were denied");
    }

    #[test]
    fn a_position_given_twice_is_found() {
        let mut history = exact();
        history.admitted[1].1 = 1;
        sole_problem(history, "1 admissions did not get a position");
    }

    #[test]
    fn unanswered_decisions_are_reported_and_may_have_counted() {
        let mut history = exact();
        history.admitted.remove(1);
        history.unanswered = 1;
        sole_problem(history, "did not answer 1 decisions");
    }

    #[test]
    fn tokens_add_up() {
        let mut result = evaluate(exact());
        result.add(&LIMITS, exact());
        assert_eq!((result.tokens, result.expected, result.admitted, result.decisions), (2, 8, 8, 16));
        assert!(result.problems().is_empty());
    }
}
