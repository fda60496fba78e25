//! Which endpoint a key belongs to: rendezvous hashing. Each endpoint has a score for each key, and the highest wins. When an endpoint
//! goes, only its keys move, and they spread over all others. The cost is one logarithm an endpoint.

/// FNV-1a: the same in every process and version, so that all instances agree.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The endpoint that a key belongs to; `candidates` are indices, seeds and weights.
pub(super) fn choose(key: u64, candidates: impl Iterator<Item = (usize, u64, u32)>) -> Option<usize> {
    let scored = candidates.map(|(index, seed, weight)| (index, score(key, seed, weight)));
    scored.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(index, _)| index)
}

/// The score of an endpoint for a key (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005): each gets a share of
/// the keys in proportion to its weight.
fn score(key: u64, seed: u64, weight: u32) -> f64 {
    // A number of 53 bits between 0 and 1, never 0.
    let uniform = ((mixed(key ^ mixed(seed)) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(weight) / -uniform.ln()
}

/// The finisher of SplitMix64: every bit of the input matters to every bit of the result.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
