//! Filters. `pattern 0xff pattern 0xff … payload`: no byte of UTF-8 is 0xff.

use shardmill_core::block::Placement;
use shardmill_core::mapping::{FilterCriteria, MAX_FILTER_STEPS, Verdict};
use shardmill_core::{Block, Records, ShardId, UnixMillis};

/// A pattern is compiled or refused with the place; the explanation agrees with the verdict; a
/// payload that is JSON is never told to be none; and the steps keep to their bound, which is that
/// of the payload's length times the pattern's.
pub fn check(data: &[u8]) {
    let mut pieces: Vec<&[u8]> = data.split(|byte| *byte == 0xff).collect();
    let payload = pieces.pop().unwrap_or_default();
    let patterns: Vec<_> = pieces.iter().map(|p| String::from_utf8_lossy(p)).collect();
    let criteria = match FilterCriteria::compile(&patterns) {
        Ok(criteria) => criteria,
        Err(error) => {
            let told = error.to_string();
            let count = patterns.len();
            let place = (1..=count).any(|n| told.starts_with(&format!("filter {n}, ")))
                || (1..=count).any(|n| told.starts_with(&format!("filter {n}: ")))
                || told.starts_with(&format!("{count} filters, "));
            assert!(place, "{told:?} does not say which filter");
            return;
        }
    };
    assert!(criteria.patterns().eq(patterns.iter().map(|p| &**p)));
    let again = FilterCriteria::compile(&patterns).expect("the same patterns");
    assert!(again == criteria);
    let _ = criteria.lint();

    let block = block(payload);
    let record = block.iter().next().expect("a record");
    let (verdict, steps) = criteria.check_counting(&record);
    assert_eq!(criteria.check(&record), verdict);
    let chars: usize = patterns.iter().map(|p| p.len()).sum();
    let product = (chars as u64 + 1) * (payload.len() as u64 + 16);
    assert!(steps <= MAX_FILTER_STEPS, "{steps} steps");
    assert!(
        steps <= product,
        "{steps} steps for {chars} bytes of patterns and {} of payload",
        payload.len()
    );
    if verdict == Verdict::NotJson {
        let json = std::str::from_utf8(payload)
            .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
        assert!(!json, "JSON that is told to be none");
    }
    let explanations = criteria.explain(&record);
    let has = |verdict| explanations.iter().any(|e| e.verdict == verdict);
    let joined = if explanations.is_empty() || has(Verdict::Match) {
        Verdict::Match
    } else if has(Verdict::TooCostly) {
        Verdict::TooCostly
    } else if has(Verdict::NotJson) {
        Verdict::NotJson
    } else {
        Verdict::NoMatch
    };
    // An explanation reads a tree, which may be too costly where the verdict needs none.
    assert!(
        joined == verdict || joined == Verdict::TooCostly,
        "{verdict:?}, explained as {explanations:?}"
    );
}

fn block(payload: &[u8]) -> Block {
    let mut records = Records::default();
    records.push("pk-1", None, payload);
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(6),
        created_seconds: 1_545_000_000,
        first: 1,
        arrival: UnixMillis(1_545_084_650_987),
    };
    Block::new(placement, index.into(), blob.into()).expect("a block")
}
