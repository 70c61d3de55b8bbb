//! What a reconciliation did, and what it could not do.

/// What a reconciliation did, item by item, as `stream "clicks"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Made.
    pub created: Vec<String>,
    /// Changed.
    pub updated: Vec<String>,
    /// Removed, by `prune`.
    pub removed: Vec<String>,
    /// Kept, though no longer named.
    pub unnamed: Vec<String>,
    /// Not done.
    pub problems: Vec<Problem>,
}

/// An item that could not be brought to what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The item.
    pub item: String,
    /// Why, and what to do.
    pub why: String,
    /// Whether an earlier version of it goes on.
    pub kept: bool,
}

/// How an item came to be what it is.
pub(super) enum Change {
    None,
    Created,
    Updated,
}

impl Summary {
    pub(super) fn note(&mut self, item: String, kept: bool, change: Result<Change, String>) {
        match change {
            Ok(Change::None) => {}
            Ok(Change::Created) => self.created.push(item),
            Ok(Change::Updated) => self.updated.push(item),
            Err(why) => self.problems.push(Problem { item, why, kept }),
        }
    }

    pub(super) fn not_removed(&mut self, item: String, error: impl std::fmt::Display) {
        let why = format!("cannot be removed: {error}");
        self.problems.push(Problem {
            item,
            why,
            kept: true,
        });
    }

    pub(super) fn log(&self) {
        for (what, items) in [
            ("made by the manifest", &self.created),
            ("changed by the manifest", &self.updated),
            ("removed: the manifest no longer names it", &self.removed),
            (
                "kept, though the manifest no longer names it",
                &self.unnamed,
            ),
        ] {
            for item in items {
                tracing::info!(item, "{what}");
            }
        }
        for Problem { item, why, kept } in &self.problems {
            let so = if *kept {
                "it stays as it was"
            } else {
                "it does not exist"
            };
            tracing::error!(item, "{why}; {so}");
        }
    }
}
