//! The judge is judged: on cases whose verdict is known, and against every placement of small ones.

use std::time::Duration;

use super::{Limit, Span, refused_for_nothing};

/// Long enough that what clocks can't tell apart does not matter.
const WINDOW: Duration = Duration::from_secs(10);
const TWO: Limit = Limit { count: 2, window: WINDOW };

fn span(from: u64, to: u64) -> Span {
    Span { from: Duration::from_secs(from), to: Duration::from_secs(to) }
}

#[test]
fn explainable_observations_are_no_fault() {
    // At 0, 1 and 10: the first has left when the third comes.
    assert_eq!(TWO.unexplained(&[span(0, 0), span(1, 1), span(10, 10)]), 0);
    assert_eq!(TWO.unexplained(&[span(0, 0), span(1, 1), span(9, 10)]), 0);
    assert_eq!(TWO.unexplained(&[span(0, 20), span(0, 20), span(0, 20), span(0, 20), span(0, 20), span(0, 20)]), 0);
    assert_eq!(TWO.unexplained(&[]), 0);
}

#[test]
fn an_observation_without_a_placement_is_a_fault() {
    assert_eq!(TWO.unexplained(&[span(0, 0), span(1, 1), span(9, 9)]), 1);
    assert_eq!(TWO.unexplained(&[span(0, 9); 5]), 3);
    // Seven in a stretch of 20 s can't be two in any 10 s, though no three of them lie in one window for certain.
    let vague = [span(0, 20); 7];
    assert_eq!((TWO.unexplained(&vague), TWO.most_surely(&vague), TWO.most_possibly(&vague)), (1, 0, 7));
    // The third pushes the fifth out, though each three neighbours could be explained by themselves.
    let chain = [span(0, 3), span(1, 3), span(8, 11), span(8, 12), span(17, 17), span(19, 19)];
    assert_eq!(TWO.unexplained(&chain), 2);
    assert_eq!(Limit { count: 0, window: WINDOW }.unexplained(&[span(0, 5), span(7, 9)]), 2);
}

#[test]
fn the_resolution_of_the_clock_is_no_fault() {
    let at = |ms| Span { from: Duration::from_millis(ms), to: Duration::from_millis(ms) };
    assert_eq!(TWO.unexplained(&[at(0), at(0), at(9_989)]), 0);
    assert_eq!(TWO.unexplained(&[at(0), at(0), at(9_980)]), 1);
}

#[test]
fn counts_lie_between_the_certain_and_the_possible() {
    let spans = [span(0, 1), span(2, 3), span(8, 11), span(12, 13)];
    assert_eq!((TWO.most_surely(&spans), TWO.most_possibly(&spans)), (2, 3));
}

#[test]
fn a_refusal_is_a_fault_if_there_was_certainly_room() {
    let admitted = [span(0, 1), span(4, 5)];
    let judge = |refusal: Span, cost| !refused_for_nothing(&[TWO], &[(refusal, cost)], &admitted).is_empty();
    assert!(!judge(span(6, 6), 1) && !judge(span(4, 4), 1) && !judge(span(10, 11), 1));
    assert!(judge(span(3, 3), 1) && judge(span(12, 13), 1));
    assert!(!judge(span(12, 13), 2) && judge(span(16, 16), 2));
    // Room in one window only is no room.
    let day = Limit { count: 2, window: WINDOW * 9 };
    assert!(refused_for_nothing(&[TWO, day], &[(span(12, 13), 1)], &admitted).is_empty());
}

#[test]
fn earlier_admissions_count_only_if_they_are_certain() {
    let before = [span(0, 1), span(2, 3), span(4, 5)];
    assert_eq!(TWO.surely_before(span(6, 7), &before), 3);
    assert_eq!(TWO.surely_before(span(6, 11), &before), 2);
    assert_eq!(TWO.surely_before(span(5, 7), &before), 2);
}

#[test]
fn small_cases_agree_with_all_their_placements() {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut faults, mut fine) = (0, 0);
    for _ in 0..3_000 {
        // Spans that begin and end in one order, as the judge takes all to do: here it is exact.
        let mut spans: Vec<Span> = Vec::new();
        for _ in 0..random.usize(1..6) {
            let last = spans.last().copied().unwrap_or(span(0, 0));
            let from = last.from + Duration::from_secs(random.u64(0..6));
            spans.push(Span { from, to: last.to.max(from) + Duration::from_secs(random.u64(0..3)) });
        }
        let placed = some_placement(&spans, &mut Vec::new());
        assert_eq!(TWO.unexplained(&spans) == 0, placed, "{spans:?}");
        *(if placed { &mut fine } else { &mut faults }) += 1;
    }
    assert!(faults > 300 && fine > 300, "{faults} {fine}");
}

/// Whether some placement on whole seconds keeps the limit.
fn some_placement(spans: &[Span], placed: &mut Vec<u64>) -> bool {
    let Some(next) = spans.get(placed.len()) else {
        let mut times = placed.clone();
        times.sort_unstable();
        return times.windows(TWO.count + 1).all(|few| few[TWO.count] - few[0] >= WINDOW.as_secs());
    };
    (next.from.as_secs()..=next.to.as_secs()).any(|at| {
        placed.push(at);
        let found = some_placement(spans, placed);
        placed.pop();
        found
    })
}
