//! Which endpoint gets the next request. Pure: candidates, weights and random numbers are arguments.

use std::sync::{Mutex, PoisonError};

/// An endpoint that may be chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndpointCandidate {
    pub(super) index: usize,
    /// At least 1.
    pub(super) weight: u64,
}

/// Draws two different endpoints by weight; the one with fewer requests for its weight wins (Mitzenmacher, "The power of two choices in
/// randomized load balancing", 2001). On a tie the first drawn wins, so that an idle upstream is used by weight too.
/// `in_flight` sums what all workers have sent to an endpoint; `draw` returns a random number below its argument.
pub(super) fn least_requests(
    candidates: impl Iterator<Item = EndpointCandidate> + Clone,
    in_flight: impl Fn(usize) -> usize,
    mut draw: impl FnMut(u64) -> u64,
) -> Option<usize> {
    let total: u64 = candidates.clone().map(|candidate| candidate.weight).sum();
    if total == 0 {
        return None;
    }
    // Other threads may have made the total smaller meanwhile.
    let first = at(candidates.clone(), draw(total)).or_else(|| candidates.clone().next())?;
    let others = candidates.clone().filter(|other| other.index != first.index);
    let rest = others.clone().map(|other| other.weight).sum();
    if rest == 0 {
        return Some(first.index);
    }
    let second = at(others, draw(rest)).unwrap_or(first);
    // In flight per weight, without a division.
    let load =
        |one: &EndpointCandidate, other: &EndpointCandidate| in_flight(one.index) as u128 * u128::from(other.weight);
    Some(if load(&second, &first) < load(&first, &second) { second.index } else { first.index })
}

/// The candidate at `position` when each is as long as its weight.
fn at(mut candidates: impl Iterator<Item = EndpointCandidate>, mut position: u64) -> Option<EndpointCandidate> {
    candidates.find(|candidate| match position.checked_sub(candidate.weight) {
        Some(rest) => {
            position = rest;
            false
        }
        None => true,
    })
}

/// Smooth weighted round robin, as in nginx. Each worker has its own.
pub(crate) struct RoundRobin(Mutex<Vec<i64>>);

impl RoundRobin {
    /// For `count` endpoints. Workers begin at different ones.
    pub(crate) fn new(count: usize) -> Self {
        let mut credits = vec![0; count];
        if let Some(first) = credits.get_mut(fastrand::usize(..count.max(1))) {
            *first = 1;
        }
        Self(Mutex::new(credits))
    }

    /// Each earns its weight; the one with the most credit is chosen, and pays what all earned.
    pub(super) fn next(&self, candidates: impl Iterator<Item = EndpointCandidate>) -> Option<usize> {
        let mut credits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut total, mut best) = (0, None);
        for EndpointCandidate { index, weight, .. } in candidates {
            let weight = i64::try_from(weight).unwrap_or(i64::MAX);
            let credit = credits.get_mut(index)?;
            *credit += weight;
            total += weight;
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((index, *credit));
            }
        }
        let (index, _) = best?;
        credits[index] -= total;
        Some(index)
    }
}
