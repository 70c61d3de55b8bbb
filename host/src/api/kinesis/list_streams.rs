//! ListStreams: the caller's streams by name, in pages.
//!
//! Old clients page by name, new ones by token; the answer serves both.

use serde::{Deserialize, Serialize};
use shardmill_core::UnixMillis;

use super::describe_stream::write_identity;
use super::shape::{LIMIT, NAME, NEXT_TOKEN};
use super::target::is_gone;
use super::{Call, Error, Input, Member, Output, page};
use crate::seal::Kind;

/// Names of one answer unless the caller says otherwise.
const DEFAULT_LIMIT: usize = 100;

pub(crate) const MEMBERS: &[Member] = &[
    Member::optional("Limit", &LIMIT),
    Member::optional("ExclusiveStartStreamName", &NAME),
    Member::optional("NextToken", &NEXT_TOKEN),
];

/// What a page token says.
#[derive(Serialize, Deserialize)]
struct Token {
    /// The number of the account that it was written for.
    account: u64,
    issued: UnixMillis,
    after: String,
}

/// Lists streams.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let token: Option<Token> = input
        .text("NextToken")
        .map(|text| page::open(call, Kind::StreamPage, text))
        .transpose()?;
    if let Some(token) = &token {
        // Another's is like one that nobody wrote.
        if token.account != call.caller.scope.tenant.number() {
            return Err(page::invalid());
        }
        page::in_time(call, token.issued)?;
    }
    let after = token.as_ref().map(|token| token.after.as_str());
    let after = after.or_else(|| input.text("ExclusiveStartStreamName"));
    let limit = input.count("Limit").unwrap_or(DEFAULT_LIMIT);
    let mut streams = call.host.store.streams(Some(&call.caller.scope));
    streams.retain(|stream| {
        !is_gone(stream, call) && after.is_none_or(|after| stream.name.as_str() > after)
    });
    let more = streams.len() > limit;
    streams.truncate(limit);
    let mut out = Output::with_capacity(256 + streams.len() * 256);
    out.structure(|out| {
        let names = streams.iter().map(|stream| &stream.name);
        out.member("StreamNames")
            .list(names, |out, name| out.plain(name));
        out.member("HasMoreStreams").boolean(more);
        if let Some(last) = streams.last().filter(|_| more) {
            let token = Token {
                account: call.caller.scope.tenant.number(),
                issued: call.now,
                after: last.name.as_str().to_owned(),
            };
            let token = page::seal(call, Kind::StreamPage, &token);
            out.member("NextToken").plain(token);
        }
        out.member("StreamSummaries").list(&streams, |out, stream| {
            out.structure(|out| write_identity(out, stream, call.now));
        });
    });
    Ok(out)
}
