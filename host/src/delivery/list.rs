//! Deliveries that have not been made, page by page, and which of them is meant.

use shardmill_core::Scope;
use shardmill_store::{Key, Table};

use super::outbox::{self, Entry, beginning, entry_key, id_of};
use super::{Delivery, DeliveryError};

/// Entries that one step of a scan reads.
const STEP: usize = 256;

/// Which deliveries are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Of this mapping, by name or UUID.
    pub mapping: Option<&'a str>,
    /// To this destination.
    pub destination: Option<&'a str>,
}

/// A delivery that has not been made.
#[derive(Clone, Debug)]
pub struct Listed {
    /// As it is stored.
    pub entry: Entry,
    /// What holds it up, if an attempt has failed since the host started.
    pub problem: Option<String>,
}

/// Deliveries, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The deliveries.
    pub deliveries: Vec<Listed>,
    /// Behind which id the rest begins, if there is one.
    pub after: Option<String>,
}

impl Filter<'_> {
    fn takes(&self, entry: &Entry) -> bool {
        self.mapping
            .is_none_or(|m| entry.mapping == m || entry.mapping_id == m)
            && self
                .destination
                .is_none_or(|d| entry.destination.as_str() == d)
    }
}

impl Delivery {
    /// Up to `limit` deliveries of a scope that have not been made, oldest first, from the first
    /// one behind the id `after`.
    ///
    /// # Errors
    /// The store's.
    pub fn list(
        &self,
        scope: &Scope,
        filter: &Filter<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, DeliveryError> {
        let prefix = Key::new(Table::Outbox, scope);
        let mut after = after.map(|id| entry_key(scope, id));
        let mut page = Page::default();
        loop {
            let step = self.inner.store.scan(&prefix, after.as_ref(), STEP)?;
            let Some((last, _)) = step.last() else {
                return Ok(page);
            };
            after = Some(last.clone());
            let entries = step
                .iter()
                .filter_map(|(_, found)| outbox::read(&found.value));
            for entry in entries.filter(|entry| filter.takes(entry)) {
                if page.deliveries.len() == limit {
                    page.after = page.deliveries.last().map(|last| last.entry.id.clone());
                    return Ok(page);
                }
                page.deliveries.push(self.listed(entry));
            }
        }
    }

    /// One delivery.
    ///
    /// # Errors
    /// `NotFound`, or the store's.
    pub fn get(&self, scope: &Scope, id: &str) -> Result<Listed, DeliveryError> {
        let found = outbox::find(self.inner.store.as_ref(), scope, id)?;
        let entry = found.ok_or_else(|| DeliveryError::NotFound(id.into()))?;
        Ok(self.listed(entry))
    }

    /// The id that begins with `id`, which may be whole.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`, or the store's.
    pub fn resolve(&self, scope: &Scope, id: &str) -> Result<String, DeliveryError> {
        /// Enough to say that there are several.
        const SEVERAL: usize = 100;
        if self.inner.store.get(&entry_key(scope, id))?.is_some() {
            return Ok(id.into());
        }
        let not_found = || DeliveryError::NotFound(id.into());
        let start = id.to_ascii_lowercase();
        let prefix = beginning(scope, &start).filter(|_| !start.is_empty());
        let prefix = prefix.ok_or_else(not_found)?;
        let found = self.inner.store.scan(&prefix, None, SEVERAL)?;
        match found.as_slice() {
            [] => Err(not_found()),
            [(key, _)] => id_of(key).ok_or_else(not_found),
            several => Err(DeliveryError::Ambiguous {
                id: id.into(),
                count: several.len(),
            }),
        }
    }

    fn listed(&self, entry: Entry) -> Listed {
        let place = entry.waiting();
        let state = self.inner.state();
        let problem = state.schedule.problem(&place.lane, &place.id);
        Listed {
            problem: problem.map(Into::into),
            entry,
        }
    }
}
