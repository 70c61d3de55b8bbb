//! What filters make of records: counts, and a few records of each kind explained field by field.

use std::collections::BTreeMap;

use serde::Serialize;
use shardmill_core::mapping::{Explanation, FilterCriteria, Position, Verdict};
use shardmill_core::{RecordRef, ShardId};

/// Records of each kind that are shown.
const SAMPLES: usize = 3;
/// Records that do not match of which it is counted which fields stand in their way: an
/// explanation costs many times as much as a verdict.
const EXPLAINED: u64 = 1_000;
/// Characters of a payload that are shown.
const SHOWN_CHARS: usize = 200;

/// Filters on trial.
pub(super) struct FilterTrial {
    criteria: FilterCriteria,
    report: FilterReport,
    fields: BTreeMap<String, u64>,
    /// By shard and lane: records before it were counted. One that found its batch full comes
    /// again.
    counted: BTreeMap<(ShardId, usize), Position>,
}

/// What filters made of the records.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FilterReport {
    /// The filters.
    pub filters: Vec<String>,
    /// What is probably not meant in them.
    pub warnings: Vec<String>,
    /// Records that match.
    pub matched: u64,
    /// Records that do not.
    pub not_matched: u64,
    /// Records that do not because their payload is not JSON.
    pub not_json: u64,
    /// Fields that stood in the way of the first thousand that do not match, and how often.
    pub fields: Vec<FieldCount>,
    /// Some that match.
    pub matching: Vec<Sample>,
    /// Some that do not.
    pub not_matching: Vec<Sample>,
    /// Some that are not JSON.
    pub unreadable: Vec<Sample>,
}

/// A field that stood in the way.
#[derive(Clone, Debug, Serialize)]
pub struct FieldCount {
    /// Its path.
    pub path: String,
    /// In how many records.
    pub records: u64,
}

/// A record, explained.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Its shard.
    pub shard: String,
    /// Its sequence number.
    pub sequence_number: String,
    /// Its partition key.
    pub partition_key: String,
    /// The beginning of its payload.
    pub data: String,
    /// What each filter says.
    pub filters: Vec<FilterVerdict>,
}

/// What one filter says of a record.
#[derive(Clone, Debug, Serialize)]
pub struct FilterVerdict {
    /// Which one, from 1.
    pub filter: usize,
    /// `match`, `no_match` or `not_json`.
    pub verdict: &'static str,
    /// What stands in the way.
    pub mismatches: Vec<FieldMismatch>,
}

/// A field that does not match.
#[derive(Clone, Debug, Serialize)]
pub struct FieldMismatch {
    /// Its path.
    pub path: String,
    /// The rules, as the pattern has them.
    pub rules: String,
    /// The record's values there, as JSON.
    pub found: Vec<String>,
    /// Why they do not match.
    pub reason: String,
}

impl FilterTrial {
    pub(super) fn new(criteria: &FilterCriteria) -> Self {
        let report = FilterReport {
            filters: criteria.patterns().map(str::to_owned).collect(),
            warnings: criteria.lint().iter().map(ToString::to_string).collect(),
            ..FilterReport::default()
        };
        Self {
            criteria: criteria.clone(),
            report,
            fields: BTreeMap::new(),
            counted: BTreeMap::new(),
        }
    }

    /// The verdict on a record, which is counted when it comes for the first time.
    pub(super) fn check(
        &mut self,
        (shard, lane): (ShardId, usize),
        record: &RecordRef<'_>,
    ) -> Verdict {
        let verdict = self.criteria.check(record);
        let (at, behind) = (record.beginning(), record.behind());
        let counted = self.counted.entry((shard, lane)).or_insert(at);
        if at < *counted {
            return verdict;
        }
        *counted = behind;
        let report = &mut self.report;
        let (count, samples) = match verdict {
            Verdict::Match => (&mut report.matched, &mut report.matching),
            Verdict::NoMatch | Verdict::TooCostly => {
                (&mut report.not_matched, &mut report.not_matching)
            }
            Verdict::NotJson => (&mut report.not_json, &mut report.unreadable),
        };
        *count += 1;
        let shown = samples.len() < SAMPLES;
        let blamed = verdict == Verdict::NoMatch && *count <= EXPLAINED;
        if !shown && !blamed {
            return verdict;
        }
        let explained = self.criteria.explain(record);
        if blamed {
            let paths = explained.iter().flat_map(|e| &e.mismatches);
            let mut paths: Vec<&str> = paths.map(|m| m.path.as_str()).collect();
            paths.sort_unstable();
            paths.dedup();
            for path in paths {
                *self.fields.entry(path.to_owned()).or_default() += 1;
            }
        }
        if shown {
            samples.push(sample(shard, record, explained));
        }
        verdict
    }

    pub(super) fn report(&self) -> FilterReport {
        let mut report = self.report.clone();
        let fields = self.fields.iter();
        report.fields = fields
            .map(|(path, records)| FieldCount {
                path: path.clone(),
                records: *records,
            })
            .collect();
        report.fields.sort_by_key(|f| std::cmp::Reverse(f.records));
        report
    }
}

fn sample(shard: ShardId, record: &RecordRef<'_>, explained: Vec<Explanation>) -> Sample {
    let data = String::from_utf8_lossy(record.parts.data);
    let filters = explained.into_iter().map(|said| FilterVerdict {
        filter: said.filter + 1,
        verdict: match said.verdict {
            Verdict::Match => "match",
            Verdict::NoMatch => "no_match",
            Verdict::NotJson => "not_json",
            Verdict::TooCostly => "too_costly",
        },
        mismatches: said
            .mismatches
            .into_iter()
            .map(|m| FieldMismatch {
                path: m.path,
                rules: m.rules,
                found: m.found,
                reason: m.reason,
            })
            .collect(),
    });
    Sample {
        shard: shard.to_string(),
        sequence_number: record.sequence_number().to_string(),
        partition_key: record.parts.key.to_owned(),
        data: data.chars().take(SHOWN_CHARS).collect(),
        filters: filters.collect(),
    }
}
