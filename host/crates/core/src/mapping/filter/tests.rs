//! What the parts do together: every recorded case, the messages, the laws.

mod cost;
mod golden;
mod laws;
mod messages;
mod reference;

use super::*;
use crate::block::{Block, Placement, Records};
use crate::shard::ShardId;
use crate::time::UnixMillis;

/// When the test's records arrived.
const ARRIVAL: UnixMillis = UnixMillis(1_545_084_650_987);

/// A block with one record.
fn block(key: &str, data: &[u8]) -> Block {
    let mut records = Records::default();
    records.push(key, None, data);
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(6),
        created_seconds: 1_545_000_000,
        first: 1,
        arrival: ARRIVAL,
    };
    Block::new(placement, index.into(), blob.into()).expect("a block")
}

fn compile(pattern: &str) -> FilterCriteria {
    FilterCriteria::compile(&[pattern]).unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

fn check(criteria: &FilterCriteria, key: &str, data: &[u8]) -> Verdict {
    let block = block(key, data);
    let record = block.iter().next().expect("a record");
    let verdict = criteria.check(&record);
    let explanations = criteria.explain(&record);
    assert_eq!(
        joined(&explanations),
        verdict,
        "{criteria:?} explains {} as {explanations:?}",
        String::from_utf8_lossy(data)
    );
    verdict
}

/// The criteria's verdict, as the filters' explanations say it.
fn joined(explanations: &[Explanation]) -> Verdict {
    let has = |verdict| explanations.iter().any(|e| e.verdict == verdict);
    for explanation in explanations {
        let is_match = explanation.verdict == Verdict::Match;
        assert_eq!(explanation.mismatches.is_empty(), is_match);
    }
    if explanations.is_empty() || has(Verdict::Match) {
        Verdict::Match
    } else if has(Verdict::TooCostly) {
        Verdict::TooCostly
    } else if has(Verdict::NotJson) {
        Verdict::NotJson
    } else {
        Verdict::NoMatch
    }
}
