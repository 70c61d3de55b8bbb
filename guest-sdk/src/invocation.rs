//! What a handler may know about the invocation it runs in.

/// Where a batch comes from, which function handles it, and how long it may take. Texts are empty
/// where there is nothing to say: an invocation by hand has no stream and no shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invocation<'a> {
    /// The stream's name.
    pub stream: &'a str,
    /// The shard, as in `shardId-000000000000`.
    pub shard: &'a str,
    /// The request id of the first attempt; retries carry the same one.
    pub request_id: &'a str,
    /// The function's name.
    pub function: &'a str,
    /// The function's version.
    pub version: &'a str,
    /// The tenant, 12 digits.
    pub tenant: &'a str,
    /// 1 on the first attempt.
    pub attempt: u32,
    /// When the invocation is cut off: milliseconds since the Unix epoch, on the handler's clock.
    pub deadline_ms: u64,
    /// The tumbling window, if the mapping has one.
    pub window: Option<Window<'a>>,
}

/// A tumbling window: fixed spans of arrival time that share one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<'a> {
    /// Its start, in milliseconds since the Unix epoch.
    pub start_ms: u64,
    /// Its end, exclusive, in milliseconds since the Unix epoch.
    pub end_ms: u64,
    /// JSON: what the window's last invocation gave to
    /// [`set_window_state`](crate::Context::set_window_state); `{}` or empty at its beginning.
    pub state: &'a str,
    /// Whether this is the window's last invocation. Its batch may be empty.
    pub is_final: bool,
    /// Whether the window ended before its time, because its state grew too large.
    pub ended_early: bool,
}
