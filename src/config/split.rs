//! The upstreams of a route: one, or several by weight.

/// A route's upstreams, and the share of the requests that each gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// At least one, in the order of the file; weights of 0 are left out.
    shares: Vec<WeightRange>,
    /// Which requests go to the same upstream.
    by: SplitBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WeightRange {
    /// An index in [`Config::upstreams`](super::Config::upstreams).
    upstream: usize,
    /// The sum of the weights up to this one.
    below: u32,
}

/// Which requests of a split route go to the same upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SplitBy {
    /// All requests of a token.
    #[default]
    Token,
    /// None: each request is drawn.
    Request,
}

impl Split {
    /// All requests to one upstream.
    pub fn to(upstream: usize) -> Self {
        Self { shares: vec![WeightRange { upstream, below: 1 }], by: SplitBy::default() }
    }

    /// To these, by weight; `None` if all weights are 0.
    pub(super) fn weighted(weights: &[(usize, u32)], by: SplitBy) -> Option<Self> {
        let mut below = 0;
        let with_weight = weights.iter().filter(|(_, weight)| *weight > 0);
        let shares: Vec<WeightRange> = with_weight
            .map(|(upstream, weight)| {
                below += weight;
                WeightRange { upstream: *upstream, below }
            })
            .collect();
        (!shares.is_empty()).then_some(Self { shares, by })
    }

    /// The upstream for a request of this token. It is the same on every instance and on every route with the same weights. When
    /// weights change, no more tokens move than necessary, as long as the upstreams keep their order in the file.
    pub fn choose(&self, token_id: Option<&str>) -> usize {
        let [one] = &self.shares[..] else {
            let number = match (self.by, token_id) {
                (SplitBy::Token, Some(id)) => hash(id.as_bytes()),
                (SplitBy::Token, None) | (SplitBy::Request, _) => fastrand::u64(..),
            };
            return self.at(number >> 32);
        };
        one.upstream
    }

    /// The upstream at a point between 0 and 2^32.
    fn at(&self, point: u64) -> usize {
        let total = self.shares.last().map_or(0, |last| last.below);
        // Below the total, because the point is below 2^32.
        let weight = ((point * u64::from(total)) >> 32) as u32;
        let share = self.shares.partition_point(|share| share.below <= weight);
        self.shares[share].upstream
    }

    /// The same with other indices for its upstreams.
    pub(super) fn renumbered(&self, index: impl Fn(usize) -> usize) -> Self {
        let shares = self.shares.iter().map(|share| WeightRange { upstream: index(share.upstream), ..*share });
        Self { shares: shares.collect(), by: self.by }
    }

    /// The upstreams and their weights, in order.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (usize, u32)> {
        let before = std::iter::once(0).chain(self.shares.iter().map(|share| share.below));
        self.shares.iter().zip(before).map(|(share, before)| (share.upstream, share.below - before))
    }

    /// The upstreams, in order.
    pub fn upstreams(&self) -> impl Iterator<Item = usize> {
        self.shares.iter().map(|share| share.upstream)
    }
}

/// FNV-1a, with the last step of SplitMix64, as its upper bits are poor for short texts. It must never change: tokens would move to other upstreams.
fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (folded ^ (folded >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(split: &Split) -> Vec<usize> {
        (0..20_000).map(|number| split.choose(Some(&format!("token{number}")))).collect()
    }

    #[test]
    fn shares_are_as_large_as_their_weights() {
        for by in [SplitBy::Token, SplitBy::Request] {
            let split = Split::weighted(&[(4, 70), (9, 0), (2, 25), (7, 5)], by).unwrap();
            let sides = sides(&split);
            for (upstream, percent) in [(4, 70), (9, 0), (2, 25), (7, 5)] {
                let count = sides.iter().filter(|side| **side == upstream).count();
                // Five standard deviations of 20,000 draws at most.
                assert!(count.abs_diff(percent * 200) < 330, "{by:?}: {count} of {percent} %");
            }
        }
        assert_eq!(Split::weighted(&[(1, 0)], SplitBy::Token), None);
        assert_eq!(Split::to(3).choose(None), 3);
    }

    #[test]
    fn a_token_stays_and_a_larger_share_only_takes() {
        let split = |canary| Split::weighted(&[(0, 100 - canary), (1, canary)], SplitBy::Token).unwrap();
        let (five, twenty) = (sides(&split(5)), sides(&split(20)));
        assert_eq!(five, sides(&split(5)));
        assert!(five.iter().zip(&twenty).all(|(before, after)| before <= after), "nobody goes back");
        // Known forever.
        assert_eq!(hash(b"token1") >> 32, 0x6941_d979);
    }

    #[test]
    fn the_ends_of_the_range_have_a_share() {
        let split = Split::weighted(&[(5, 1), (6, u32::MAX - 1)], SplitBy::Token).unwrap();
        assert_eq!((split.at(0), split.at(u64::from(u32::MAX))), (5, 6));
    }
}
