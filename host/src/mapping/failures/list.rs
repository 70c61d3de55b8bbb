//! Listing: newest first, page by page. Ids are in the order of time, so that an instant is a
//! place in the table, and a page reads no more than it has to.

use shardmill_core::mapping::Reason;
use shardmill_core::{Scope, UnixMillis};
use shardmill_store::{Key, Table};

use super::entry::{entry_key, first_id_of, id_of, parse};
use super::{FailureEntry, Failures, FailuresError};

/// Entries that are read at a time.
const PAGE: usize = 200;

/// Entries that one call looks at, at most: a filter that few of them pass goes on in the next.
const MOST_READ: usize = 10_000;

/// Which entries to list.
#[derive(Clone, Debug, Default)]
pub struct FailureFilter {
    /// Of this mapping, by name or UUID.
    pub mapping: Option<String>,
    /// Of this function.
    pub function: Option<String>,
    /// Of this stream.
    pub stream: Option<String>,
    /// Of this shard.
    pub shard: Option<String>,
    /// With this reason.
    pub reason: Option<Reason>,
    /// With a cause of this name.
    pub cause: Option<String>,
    /// Made then or later.
    pub since: Option<UnixMillis>,
    /// Made before then.
    pub until: Option<UnixMillis>,
    /// What of those that were redriven.
    pub redriven: Redriven,
    /// Only entries that can be redriven: not imported, not parked, and with records.
    pub can_redrive: bool,
}

/// Whether entries that were redriven are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redriven {
    /// They are left out.
    #[default]
    No,
    /// They too.
    Also,
    /// Nothing else.
    Only,
}

/// Entries, newest first, and where to go on.
#[derive(Clone, Debug)]
pub struct Page {
    /// The entries.
    pub entries: Vec<FailureEntry>,
    /// The next page is before this id; `None`: there is none.
    pub before: Option<String>,
}

impl FailureFilter {
    fn takes(&self, entry: &FailureEntry) -> bool {
        let is = |filter: &Option<String>, value: &str| {
            filter.as_deref().is_none_or(|filter| filter == value)
        };
        let cause = entry.cause.as_ref().map_or("", |cause| cause.name());
        (is(&self.mapping, &entry.mapping) || is(&self.mapping, &entry.mapping_id))
            && is(&self.function, &entry.function)
            && is(&self.stream, &entry.stream)
            && is(&self.shard, &entry.shard)
            && self.reason.is_none_or(|reason| reason == entry.reason)
            && is(&self.cause, cause)
            && self.since.is_none_or(|since| entry.created >= since)
            && self.until.is_none_or(|until| entry.created < until)
            && match self.redriven {
                Redriven::No => entry.redriven.is_none(),
                Redriven::Also => true,
                Redriven::Only => entry.redriven.is_some(),
            }
            && (!self.can_redrive || entry.can_be_redriven())
    }
}

impl Failures {
    /// The entries of a scope, newest first, at most `limit`, from the first one made before
    /// the entry `before`. A page may be short, even empty, and still not be the last: a call
    /// looks at 10,000 entries at the most.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub fn list(
        &self,
        scope: &Scope,
        filter: &FailureFilter,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Page, FailuresError> {
        let all = Key::new(Table::Failure, scope);
        let until = filter.until.map(first_id_of);
        let mut end = match (before, until.as_deref()) {
            (Some(before), Some(until)) => Some(before.min(until)),
            (before, until) => before.or(until),
        }
        .map(|id| entry_key(scope, id));
        let since = filter.since.map(|s| entry_key(scope, &first_id_of(s)));
        let mut entries = Vec::new();
        for _ in 0..MOST_READ / PAGE {
            let size = PAGE.min(limit.saturating_mul(2)).max(1);
            let page = self.inner.store.scan_back(&all, end.as_ref(), size)?;
            for (key, stored) in &page {
                if since.as_ref().is_some_and(|since| key < since) {
                    return Ok(Page {
                        entries,
                        before: None,
                    });
                }
                end = Some(key.clone());
                match parse(&stored.value) {
                    Ok(entry) if filter.takes(&entry) => entries.push(entry),
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "an entry is damaged and left out"),
                }
                if entries.len() >= limit {
                    let before = id_of(key);
                    return Ok(Page { entries, before });
                }
            }
            if page.len() < size {
                return Ok(Page {
                    entries,
                    before: None,
                });
            }
        }
        let before = end.as_ref().and_then(id_of);
        Ok(Page { entries, before })
    }

    /// Every entry of a scope that passes, oldest first.
    ///
    /// # Errors
    /// See [`FailuresError`].
    pub fn all(
        &self,
        scope: &Scope,
        filter: &FailureFilter,
    ) -> Result<Vec<FailureEntry>, FailuresError> {
        let mut entries = Vec::new();
        let mut before = None;
        loop {
            let page = self.list(scope, filter, before.as_deref(), PAGE)?;
            entries.extend(page.entries);
            before = page.before;
            if before.is_none() {
                entries.reverse();
                return Ok(entries);
            }
        }
    }

    /// Bytes that the caller's account keeps, and bytes that it may.
    pub fn used(&self, scope: &Scope) -> (u64, u64) {
        self.inner.ledger.used(scope)
    }
}
