//! For stores that stand before another one and change some of what it does.

/// Passes the named methods of [`Store`](crate::Store) on to the store in a field. All methods must be there: whichever is
/// not named is written by hand, in the same `impl`.
#[macro_export]
macro_rules! pass_on {
    ($field:ident: $($method:ident)*) => { $($crate::pass_on!(@$method $field);)* };
    (@commit $field:ident) => {
        fn commit(
            &self,
            tx: $crate::Tx,
        ) -> $crate::BoxFuture<'_, Result<$crate::Receipt, $crate::CommitError>> {
            self.$field.commit(tx)
        }
    };
    (@read $field:ident) => {
        fn read(
            &self,
            shard: $crate::core::ShardKey,
            from: u64,
            limit: $crate::ReadLimit,
        ) -> $crate::BoxFuture<'_, Result<Vec<$crate::core::Block>, $crate::ReadError>> {
            self.$field.read(shard, from, limit)
        }
    };
    (@seek $field:ident) => {
        fn seek(
            &self,
            shard: $crate::core::ShardKey,
            to: $crate::Seek,
        ) -> $crate::BoxFuture<'_, Result<u64, $crate::ReadError>> {
            self.$field.seek(shard, to)
        }
    };
    (@extent $field:ident) => {
        fn extent(
            &self,
            shard: $crate::core::ShardKey,
            from: u64,
            to: u64,
        ) -> $crate::BoxFuture<'_, Result<$crate::Extent, $crate::ReadError>> {
            self.$field.extent(shard, from, to)
        }
    };
    (@subscribe $field:ident) => {
        fn subscribe(
            &self,
            shard: $crate::core::ShardKey,
        ) -> Result<$crate::watch::Receiver<u64>, $crate::ReadError> {
            self.$field.subscribe(shard)
        }
    };
    (@get $field:ident) => {
        fn get(
            &self,
            key: &$crate::Key,
        ) -> Result<Option<$crate::Versioned>, $crate::ReadError> {
            self.$field.get(key)
        }
    };
    (@scan $field:ident) => {
        fn scan(
            &self,
            prefix: &$crate::Key,
            after: Option<&$crate::Key>,
            limit: usize,
        ) -> Result<Vec<($crate::Key, $crate::Versioned)>, $crate::ReadError> {
            self.$field.scan(prefix, after, limit)
        }
    };
    (@scan_back $field:ident) => {
        fn scan_back(
            &self,
            prefix: &$crate::Key,
            before: Option<&$crate::Key>,
            limit: usize,
        ) -> Result<Vec<($crate::Key, $crate::Versioned)>, $crate::ReadError> {
            self.$field.scan_back(prefix, before, limit)
        }
    };
    (@blob $field:ident) => {
        fn blob(
            &self,
            key: &$crate::Key,
        ) -> $crate::BoxFuture<'_, Result<Option<$crate::Bytes>, $crate::ReadError>> {
            self.$field.blob(key)
        }
    };
    (@catalog $field:ident) => {
        fn counters(
            &self,
            scope: &$crate::core::Scope,
            function: &str,
        ) -> Result<Vec<(String, i64)>, $crate::ReadError> {
            self.$field.counters(scope, function)
        }

        fn stream(
            &self,
            scope: &$crate::core::Scope,
            name: &$crate::core::StreamName,
        ) -> Option<std::sync::Arc<$crate::core::Stream>> {
            self.$field.stream(scope, name)
        }

        fn stream_by_id(
            &self,
            id: $crate::core::StreamId,
        ) -> Option<std::sync::Arc<$crate::core::Stream>> {
            self.$field.stream_by_id(id)
        }

        fn streams(
            &self,
            scope: Option<&$crate::core::Scope>,
        ) -> Vec<std::sync::Arc<$crate::core::Stream>> {
            self.$field.streams(scope)
        }

        fn watch_streams(&self) -> $crate::watch::Receiver<u64> {
            self.$field.watch_streams()
        }

        fn stats(&self) -> $crate::Stats {
            self.$field.stats()
        }

        fn close(&self) -> $crate::BoxFuture<'_, ()> {
            self.$field.close()
        }
    };
    (@has_room $field:ident) => {
        fn has_room(&self, tenant: $crate::core::TenantId, bytes: u64) -> bool {
            self.$field.has_room(tenant, bytes)
        }
    };
}
