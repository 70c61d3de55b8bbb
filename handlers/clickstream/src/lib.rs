//! Engagement metrics from a web server's access log and from JSON click events. It shows a
//! record-mode handler that uses counters and keyed state on real, unclean input.
//!
//! A record is either a line of the combined log format ([`access_log`]) or a JSON object
//! ([`click`]); its partition key is the client. A record that is neither fails with the type
//! `MalformedRecord` and says what is wrong with it.
//!
//! | counter | counts |
//! | --- | --- |
//! | `hits` | records |
//! | `bytes` | bytes sent |
//! | `page:PATH` | hits of a page, without its query; GET and status 200 only |
//! | `status:CODE` | hits by status |
//! | `method:METHOD` | hits by method |
//! | `day:YYYY-MM-DD` | hits by day, in UTC |
//! | `clients` | partition keys seen for the first time |
//! | `sessions` | visits of a client, cut where it was silent for more than 30 minutes |
//!
//! State `sessions` holds the visits of each client, in the form of [`sessions`].

pub mod access_log;
pub mod click;
mod counter_name;
pub mod sessions;
mod time;

use shardmill_guest::{Context, Error, Record};

use crate::counter_name::CounterName;

shardmill_guest::handler!(record: on_hit);

/// One request that a client made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit<'a> {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Such as `GET`.
    pub method: &'a str,
    /// Path and query as the client sent them.
    pub target: &'a str,
    /// The HTTP status, three digits.
    pub status: u16,
    /// Bytes of the response's body.
    pub bytes: u64,
}

/// The handler.
pub fn on_hit(record: &Record, ctx: &mut Context) -> Result<(), Error> {
    let data = record.data();
    if data.trim_ascii_start().starts_with(b"{") {
        let click = click::parse(data).map_err(|why| malformed(&why.to_string(), data))?;
        count(&click.hit(), ctx)
    } else {
        let hit = access_log::parse(data).map_err(|why| malformed(why, data))?;
        count(&hit, ctx)
    }
}

fn count(hit: &Hit<'_>, ctx: &mut Context) -> Result<(), Error> {
    let mut name = CounterName::new();
    ctx.counter_add("hits", 1);
    ctx.counter_add("bytes", hit.bytes.cast_signed());
    ctx.counter_add(name.status(hit.status), 1);
    ctx.counter_add(name.method(hit.method), 1);
    ctx.counter_add(name.day(hit.at_ms), 1);
    if hit.method == "GET" && hit.status == 200 {
        let path = hit.target.split('?').next().unwrap_or_default();
        ctx.counter_add(name.page(path), 1);
    }
    count_visit(hit.at_ms, ctx)
}

fn count_visit(at_ms: i64, ctx: &mut Context) -> Result<(), Error> {
    const STATE: &str = "sessions";

    let known = ctx.state().get_bytes(STATE)?;
    if known.is_none() {
        ctx.counter_add("clients", 1);
    }
    let mut visits = known.unwrap_or_default();
    let change = sessions::add(&mut visits, at_ms);
    if change.count != 0 {
        ctx.counter_add("sessions", change.count);
    }
    if change.is_stored {
        ctx.state().set_bytes(STATE, &visits)?;
    }
    Ok(())
}

/// Names what is wrong, and shows how the record begins.
fn malformed(why: &str, data: &[u8]) -> Error {
    const SHOWN_BYTES: usize = 160;

    let beginning = &data[..data.len().min(SHOWN_BYTES)];
    let dots = if beginning.len() < data.len() {
        "…"
    } else {
        ""
    };
    let text = String::from_utf8_lossy(beginning);
    Error::new("MalformedRecord", format!("{why}: {text}{dots}"))
}
