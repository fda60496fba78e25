//! Who gets the next request. Pure: who may be chosen, weights and chance are given.

use std::sync::{Mutex, PoisonError};

use super::hash::score;

/// One who may be chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) index: usize,
    /// At least 1.
    pub(super) weight: u64,
    pub(super) in_flight: usize,
}

/// Two different ones are drawn by weight, and the one wins that has fewer requests for its weight (Mitzenmacher, "The power of two choices in
/// randomized load balancing", 2001). Equals stay in the order of the draw, so that an idle upstream is used by weight too.
/// `draw` gives a number below its argument.
pub(super) fn least_requests(
    candidates: impl Iterator<Item = Candidate> + Clone,
    mut draw: impl FnMut(u64) -> u64,
) -> Option<usize> {
    let total: u64 = candidates.clone().map(|candidate| candidate.weight).sum();
    if total == 0 {
        return None;
    }
    // What others change meanwhile may have made the total smaller.
    let first = at(candidates.clone(), draw(total)).or_else(|| candidates.clone().next())?;
    let others = candidates.clone().filter(|other| other.index != first.index);
    let rest = others.clone().map(|other| other.weight).sum();
    if rest == 0 {
        return Some(first.index);
    }
    let second = at(others, draw(rest)).unwrap_or(first);
    // In flight per weight, without a division.
    let load = |one: &Candidate, other: &Candidate| one.in_flight as u128 * u128::from(other.weight);
    Some(if load(&second, &first) < load(&first, &second) { second.index } else { first.index })
}

/// Who stands at `place` when each takes up as much as it weighs.
fn at(mut candidates: impl Iterator<Item = Candidate>, mut place: u64) -> Option<Candidate> {
    candidates.find(|candidate| match place.checked_sub(candidate.weight) {
        Some(rest) => {
            place = rest;
            false
        }
        None => true,
    })
}

/// Whose turn it is: smooth weighted round robin, as nginx made it known. A worker has its own.
pub(in crate::forward) struct RoundRobin(Mutex<Vec<i64>>);

impl RoundRobin {
    /// Before `count` endpoints. Workers begin at different ones.
    pub(in crate::forward) fn new(count: usize) -> Self {
        let mut credits = vec![0; count];
        if let Some(first) = credits.get_mut(fastrand::usize(..count.max(1))) {
            *first = 1;
        }
        Self(Mutex::new(credits))
    }

    /// Everybody earns their weight; who has most serves, and pays what all earned.
    pub(super) fn next(&self, candidates: impl Iterator<Item = Candidate>) -> Option<usize> {
        let mut credits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut total, mut best) = (0, None);
        for Candidate { index, weight, .. } in candidates {
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

/// Who a key belongs to; `candidates` are indices, seeds and weights.
pub(super) fn by_key(key: u64, candidates: impl Iterator<Item = (usize, u64, u32)>) -> Option<usize> {
    let scored = candidates.map(|(index, seed, weight)| (index, score(key, seed, weight)));
    scored.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(index, _)| index)
}
