//! Which of an alias's two versions takes a request.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The share of requests that an alias gives to its second version, 0.0 … 1.0. Lambda API
/// reference, "AliasRoutingConfiguration".
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Weight(f64);

/// A number that is no weight.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("weight {0}: 0.0 to 1.0 expected")]
pub struct BadWeight(f64);

impl TryFrom<f64> for Weight {
    type Error = BadWeight;

    fn try_from(share: f64) -> Result<Self, BadWeight> {
        if (0.0..=1.0).contains(&share) {
            // No negative zero: weights that mean the same are equal.
            Ok(Self(share + 0.0))
        } else {
            Err(BadWeight(share))
        }
    }
}

impl From<Weight> for f64 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl PartialEq for Weight {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Weight {}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Weight {
    /// Whether the request with this id goes to the second version. The same id gives the same
    /// answer as long as the weight stays, and one that went there still does when it grows.
    pub fn takes(self, request_id: &str) -> bool {
        /// 2^53: every number below it is exact in an `f64`.
        const STEPS: f64 = (1_u64 << 53) as f64;
        let share = (hash(request_id) >> 11) as f64 / STEPS;
        share < self.0
    }
}

/// FNV-1a, mixed so that every bit counts.
pub(super) fn hash(text: &str) -> u64 {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = text.bytes().fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    });
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(share: f64) -> Weight {
        Weight::try_from(share).expect("a weight")
    }

    /// In the form of a request id, near each other: the worst that a hash is given.
    fn id(n: u32) -> String {
        format!("00000000-0000-4000-8000-{n:012x}")
    }

    #[test]
    fn the_second_version_takes_its_share_of_requests() {
        const REQUESTS: u32 = 20_000;
        for share in [0.01, 0.1, 0.25, 0.5, 0.9] {
            let taken = (0..REQUESTS)
                .filter(|n| weight(share).takes(&id(*n)))
                .count();
            let expected = f64::from(REQUESTS) * share;
            // Five standard deviations of as many tosses of a coin.
            let slack = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!((taken as f64 - expected).abs() < slack, "{share}: {taken}");
        }
        assert!((0..REQUESTS).all(|n| !weight(0.0).takes(&id(n))));
        assert!((0..REQUESTS).all(|n| weight(1.0).takes(&id(n))));
    }

    #[test]
    fn a_retry_stays_where_it_was_and_a_growing_weight_takes_nobody_back() {
        for n in 0..1_000 {
            let id = id(n);
            assert_eq!(weight(0.3).takes(&id), weight(0.3).takes(&id));
            assert!(!weight(0.3).takes(&id) || weight(0.4).takes(&id), "{id}");
        }
    }

    #[test]
    fn only_shares_are_weights() {
        for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Weight::try_from(share).is_err(), "{share}");
        }
        assert_eq!(weight(-0.0), weight(0.0));
        let bad = serde_json::from_str::<Weight>("2.0").expect_err("out of range");
        assert!(
            bad.to_string().contains("weight 2: 0.0 to 1.0 expected"),
            "{bad}"
        );
    }
}
