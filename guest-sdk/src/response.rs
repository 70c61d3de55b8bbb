//! How a batch-mode handler says which records failed.

/// The result of a batch: all done, or done up to the lowest record that failed.
///
/// The records below the lowest index are done and their effects are committed; that record and
/// everything after it are delivered again. Effects count for the record that
/// [`Context::current`](crate::Context::current) named last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct BatchResponse {
    failed: Vec<usize>,
}

impl BatchResponse {
    /// Every record is done. A handler may return `()` instead.
    pub fn ok() -> Self {
        Self::default()
    }

    /// The records at these indices failed. None at all is the same as [`ok`](Self::ok).
    ///
    /// ```
    /// # use shardmill_guest::BatchResponse;
    /// let response = BatchResponse::failed([7]);
    /// ```
    pub fn failed(indices: impl IntoIterator<Item = usize>) -> Self {
        Self {
            failed: indices.into_iter().collect(),
        }
    }

    /// In order, each index once.
    pub(crate) fn into_indices(self) -> Vec<usize> {
        let mut failed = self.failed;
        failed.sort_unstable();
        failed.dedup();
        failed
    }
}

impl From<()> for BatchResponse {
    fn from((): ()) -> Self {
        Self::ok()
    }
}
