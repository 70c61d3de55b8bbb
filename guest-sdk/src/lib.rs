//! Everything a handler's author sees: one macro, a few types, no host code.
//!
//! A handler is an ordinary function, and [`handler!`] turns it into a WebAssembly module that a
//! Shardmill host can run:
//!
//! ```
//! use serde::Deserialize;
//! use shardmill_guest::{Context, Error, Record};
//!
//! shardmill_guest::handler!(record: on_click);
//!
//! #[derive(Deserialize)]
//! struct Click<'a> {
//!     page: &'a str,
//! }
//!
//! fn on_click(record: &Record, ctx: &mut Context) -> Result<(), Error> {
//!     let click: Click = record.json()?; // borrows from the record; an error fails this record
//!     ctx.counter_add("views", 1);
//!     ctx.state().set("last_page", click.page) // kept under the record's partition key
//! }
//!
//! // It is tested like any function, without a sandbox:
//! use shardmill_guest::testing::{self, record};
//!
//! let outcome = testing::run_record(on_click, &[record("ann", r#"{"page": "/"}"#)]);
//! assert_eq!(outcome.counters["views"], 1);
//! assert_eq!(outcome.state_text("ann", "last_page"), Some(r#""/""#));
//! ```
//!
//! The crate of a handler has `crate-type = ["cdylib", "rlib"]` and is built with
//! `cargo build --target wasm32-wasip1`.
//!
//! # Three shapes
//!
//! | | the function | when a record fails |
//! | --- | --- | --- |
//! | `handler!(record: f)` | `fn(&Record, &mut Context) -> Result<(), Error>` | the records before it are done, with their effects; it is retried, and only it is given up |
//! | `handler!(batch: f)` | `fn(&Batch, &mut Context) -> Result<(), Error>`, or `Result<BatchResponse, Error>` | the batch is retried, or what [`BatchResponse::failed`] names |
//! | `handler!(event: f)` | `fn(T, &mut Context) -> Result<R, Error>`, JSON in and JSON out | as with AWS Lambda |
//!
//! # Effects
//!
//! Keyed state, counters and emitted records are kept by the host and committed together with the
//! progress of the batch. An attempt that fails leaves none of them, so a handler never has to ask
//! whether it has seen a record before. A panic is a failure too; its message is in the trap
//! report, because the standard hook writes it to standard error.
//!
//! What crosses the boundary is described, to the byte, in `docs/abi.md`.

#![warn(missing_docs)]

mod abi;
mod answer;
mod batch;
mod context;
mod error;
pub mod export;
pub mod host;
#[cfg(target_family = "wasm")]
mod imports;
mod invocation;
mod record;
mod response;
pub mod run;
mod sequence_number;
mod state;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use batch::Batch;
pub use context::{Context, Level};
pub use error::Error;
pub use invocation::{Invocation, Window};
pub use record::Record;
pub use response::BatchResponse;
pub use sequence_number::SequenceNumber;
pub use state::State;
