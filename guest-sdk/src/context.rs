//! What a handler can do besides computing: effects, log, and a look at its invocation.

use serde::Serialize;

#[cfg(target_family = "wasm")]
use crate::host::Host as _;
use crate::host::HostRef;
use crate::{Error, Invocation, State, host};

/// What a handler is given beside its input.
///
/// Effects (keyed state, counters, emitted records) become visible when the host commits the
/// batch, exactly once, together with its progress; those of a failed record never do.
pub struct Context<'a> {
    invocation: Invocation<'a>,
    shape: Shape,
    host: HostRef<'a>,
    current: Option<u32>,
    refusal: Option<Error>,
    window_state: String,
}

/// The shape of the handler that this context is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Record,
    Batch,
    Event,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something will need attention.
    Warn = 2,
    /// What happened.
    Info = 3,
    /// For whoever looks for a fault.
    Debug = 4,
    /// Every step.
    Trace = 5,
}

impl<'a> Context<'a> {
    pub(crate) fn new(invocation: Invocation<'a>, shape: Shape, host: HostRef<'a>) -> Self {
        Self {
            invocation,
            shape,
            host,
            current: None,
            refusal: None,
            window_state: String::new(),
        }
    }

    /// Where the batch comes from and how long it may take.
    pub fn invocation(&self) -> &Invocation<'a> {
        &self.invocation
    }

    /// Adds `n`, which may be negative, to the function's counter `name`, 1 … 128 bytes long.
    ///
    /// A name that the host refuses fails the record (in batch and event mode, the invocation)
    /// when the handler returns: no addition is lost in silence.
    pub fn counter_add(&mut self, name: &str, n: i64) {
        let code = self.host.counter_add(name, n);
        if code < 0 {
            self.refuse("counter_add", name, code);
        }
    }

    /// The current record's keyed state: what this function keeps for its partition key.
    pub fn state(&mut self) -> State<'_, 'a> {
        State::new(&mut self.host)
    }

    /// Puts a record into a stream of the same tenant when the batch is committed. Stream: 1 … 128
    /// bytes; key: 1 … 256 characters; key and data together: at most 1 MiB. A stream that does
    /// not exist fails the batch at its commit.
    ///
    /// # Errors
    /// The host refuses a length.
    pub fn emit(&mut self, stream: &str, key: &str, data: impl AsRef<[u8]>) -> Result<(), Error> {
        match self.host.emit(stream, key, data.as_ref()) {
            code if code < 0 => Err(refused("emit", stream, code)),
            _ => Ok(()),
        }
    }

    /// Writes a line to the function's log, cut at 4 KiB. It is there at once, and stays if the
    /// attempt fails.
    pub fn log(&mut self, level: Level, text: impl AsRef<str>) {
        self.host.log(level as i32, text.as_ref());
    }

    /// Batch mode: says that the handler now works on record `index`. Effects from here on count
    /// for that record, keyed state is that of its partition key, and if the invocation fails it
    /// is the suspect. In record mode this is done already, and calling it fails the record.
    pub fn current(&mut self, index: usize) {
        if self.shape == Shape::Batch {
            let entered = self.enter(u32::try_from(index).unwrap_or(u32::MAX));
            self.refusal = self.refusal.take().or(entered.err());
        } else {
            self.refuse(
                "current",
                "in a handler that is not batch mode",
                host::UNKNOWN,
            );
        }
    }

    /// With a tumbling window: what the window's next invocation finds in
    /// [`Window::state`](crate::Window::state).
    ///
    /// # Errors
    /// `state` cannot be written as JSON.
    pub fn set_window_state(&mut self, state: &impl Serialize) -> Result<(), Error> {
        self.window_state = serde_json::to_string(state)?;
        Ok(())
    }

    /// Makes `index` the current record.
    pub(crate) fn enter(&mut self, index: u32) -> Result<(), Error> {
        match self.host.progress(index) {
            code if code < 0 => Err(refused("progress", &index.to_string(), code)),
            _ => {
                self.current = Some(index);
                Ok(())
            }
        }
    }

    /// The record that was entered last.
    pub(crate) fn current_index(&self) -> Option<u32> {
        self.current
    }

    /// JSON, or empty if none was set.
    pub(crate) fn window_state(&self) -> &str {
        &self.window_state
    }

    /// Fails if a call that returns nothing was refused since the last time.
    pub(crate) fn check_refusal(&mut self) -> Result<(), Error> {
        if self.refusal.is_none() {
            Ok(())
        } else {
            self.refusal.take().map_or(Ok(()), Err)
        }
    }

    #[cold]
    fn refuse(&mut self, call: &str, name: &str, code: i32) {
        self.refusal
            .get_or_insert_with(|| refused(call, name, code));
    }
}

/// The error for a host call that returned a negative code.
#[cold]
pub(crate) fn refused(call: &str, name: &str, code: i32) -> Error {
    let why = match code {
        host::NO_CURRENT_RECORD => "there is no current record",
        host::BAD_ARGUMENT => "a name, key or value is empty or too long",
        host::UNKNOWN => "no such record or level",
        _ => "unknown reason",
    };
    Error::new(
        "HostCallRefused",
        format!("{call} {name:?}: {why} (code {code})"),
    )
}
