//! A mapping's filter criteria at work: what becomes of a record. They are compiled once for a
//! mapping, whatever the number of its pollers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use shardmill_core::RecordRef;
use shardmill_core::mapping::{FilterCriteria, MAX_FILTER_STEPS, Sorted, Verdict};

use super::resource::Mapping;

/// Compiled filter criteria; none when every record is delivered.
#[derive(Clone)]
pub(super) struct Filters {
    criteria: FilterCriteria,
    /// The minute of arrival of the last record of the mapping that was told of: who puts records
    /// does not fill the log.
    told: Arc<AtomicU64>,
}

impl Filters {
    fn of(criteria: FilterCriteria) -> Self {
        let told = Arc::default();
        Self { criteria, told }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.criteria.is_empty()
    }

    /// Deliver or drop.
    pub(super) fn sort(&self, record: &RecordRef<'_>) -> Sorted {
        match self.criteria.check(record) {
            Verdict::Match => Sorted::Deliver,
            Verdict::NoMatch => Sorted::Drop,
            Verdict::NotJson => Sorted::NotJson,
            Verdict::TooCostly => {
                let minute = record.arrival.0 / 60_000;
                if self.told.swap(minute, Relaxed) != minute {
                    let (shard, sequence_number) = (record.shard(), record.sequence_number());
                    tracing::warn!(
                        %shard,
                        %sequence_number,
                        "a record is filtered out, and maybe more of this minute: judging it takes \
                         more than {MAX_FILTER_STEPS} steps"
                    );
                }
                Sorted::Drop
            }
        }
    }
}

/// The compiled criteria of mappings, by id.
#[derive(Default)]
pub(super) struct CompiledFilters(Mutex<HashMap<String, Filters>>);

impl CompiledFilters {
    /// The mapping's. They were checked when they were set, so what does not compile is damage.
    pub(super) fn of(&self, mapping: &Mapping) -> Result<Filters, String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let patterns = &mapping.policy.filter_criteria;
        if let Some(known) = all.get(&mapping.id)
            && known
                .criteria
                .patterns()
                .eq(patterns.iter().map(String::as_str))
        {
            return Ok(known.clone());
        }
        let compiled = FilterCriteria::compile(patterns);
        let compiled = compiled.map_err(|bad| format!("its filters are damaged: {bad}"))?;
        let filters = Filters::of(compiled);
        all.insert(mapping.id.clone(), filters.clone());
        Ok(filters)
    }

    /// Keeps what was compiled when the mapping was made or changed.
    pub(super) fn keep(&self, mapping: &Mapping, compiled: FilterCriteria) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(mapping.id.clone(), Filters::of(compiled));
    }

    /// Forgets a mapping that is gone.
    pub(super) fn forget(&self, mapping: &Mapping) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&mapping.id);
    }
}

#[cfg(test)]
mod tests {
    use shardmill_core::mapping::{Policy, StartingPosition};
    use shardmill_core::{Scope, StreamId, UnixMillis};

    use super::*;
    use crate::mapping::Origin;

    fn mapping(pattern: &str) -> Mapping {
        Mapping {
            id: "m".into(),
            name: "m".into(),
            scope: Scope::default(),
            stream: "in".parse().unwrap(),
            stream_id: StreamId(1),
            function: "f".into(),
            qualifier: None,
            starting_position: StartingPosition::Latest,
            policy: Policy {
                filter_criteria: vec![pattern.into()],
                ..Policy::aws()
            },
            enabled: true,
            last_modified: UnixMillis(0),
            origin: Origin::Api,
            epoch: 0,
            deleting: false,
            on_failure: None,
        }
    }

    #[test]
    fn a_mappings_filters_are_compiled_once_until_they_change() {
        // Every poller compiled them for itself.
        let all = CompiledFilters::default();
        let compiled = |mapping: &Mapping| {
            let Filters { criteria, .. } = all.of(mapping).unwrap();
            let text = criteria.patterns().next().map(str::to_owned);
            let place = criteria.patterns().next().map(str::as_ptr);
            (text, place)
        };
        let (old, new) = (
            mapping(r#"{"data":{"a":[1]}}"#),
            mapping(r#"{"data":{"a":[2]}}"#),
        );
        let first = compiled(&old);
        assert_eq!(compiled(&old), first);
        let changed = compiled(&new);
        assert_eq!(changed.0.as_deref(), Some(r#"{"data":{"a":[2]}}"#));
        assert_eq!(compiled(&new), changed);
    }
}
