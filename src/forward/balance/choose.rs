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

/// Two are drawn by weight, and the one wins that has fewer requests for its weight (Mitzenmacher, "The power of two choices in
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
    let mut drawn = || {
        let mut left = draw(total);
        let found = candidates.clone().find(|candidate| match left.checked_sub(candidate.weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        // What others change meanwhile may have made the total smaller.
        found.or_else(|| candidates.clone().next())
    };
    let (first, second) = (drawn()?, drawn()?);
    // In flight per weight, without a division.
    let load = |one: &Candidate, other: &Candidate| one.in_flight as u128 * u128::from(other.weight);
    Some(if load(&second, &first) < load(&first, &second) { second.index } else { first.index })
}

/// Whose turn it is: smooth weighted round robin, as nginx made it known. A worker has its own.
pub(in crate::forward) struct Turns(Mutex<Vec<i64>>);

impl Turns {
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
