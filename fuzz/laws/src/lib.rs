//! What must hold whatever the bytes are: one module for each thing that reads bytes of others,
//! one function `check` in each, which panics when a law is broken.
//!
//! The same functions run in two ways. `tests/corpus.rs` runs each over its corpus
//! (`fuzz/corpus/NAME`) and seeded mutations of it, in every test run; `cargo xtask fuzz` runs it
//! guided by coverage, for as long as one likes. `docs/security.md`, "Fuzzing", lists the laws.

pub mod aggregate;
pub mod answer;
pub mod batch;
pub mod chunked;
pub mod filter;
pub mod frame;
pub mod journal;
pub mod key;
pub mod kinesis;
pub mod manifest;
pub mod native;
pub mod sigv4;
pub mod sqs;

mod input;
mod reply;
mod signer;

/// A target: its name, which its corpus and its fuzzing program have too, and its law.
pub type Target = (&'static str, fn(&[u8]));

/// Every target there is.
pub const TARGETS: &[Target] = &[
    ("aggregate", aggregate::check),
    ("answer", answer::check),
    ("batch", batch::check),
    ("chunked", chunked::check),
    ("filter", filter::check),
    ("frame", frame::check),
    ("journal", journal::check),
    ("key", key::check),
    ("kinesis", kinesis::check),
    ("manifest", manifest::check),
    ("native", native::check),
    ("sigv4", sigv4::check),
    ("sqs", sqs::check),
];
