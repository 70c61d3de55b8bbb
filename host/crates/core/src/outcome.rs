//! How an invocation ended, with the figures a reader will ask for. A guest's failure is a
//! value, never an error of the host.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How one attempt at a batch ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The handler returned success. `text` is the new window state, or empty.
    Ok {
        /// New state of the tumbling window (JSON), or empty.
        text: String,
    },
    /// The handler named records that failed. Never empty.
    Partial {
        /// Indices in the batch, in the handler's order.
        failed: Vec<u32>,
        /// New state of the tumbling window (JSON), or empty.
        text: String,
    },
    /// An event-mode handler or a WASI command returned JSON.
    Json {
        /// The response.
        text: String,
    },
    /// The invocation failed in the handler. Uses an attempt.
    Failed(Failure),
    /// The host could not run the invocation. Uses no attempt.
    Throttled {
        /// What was short, and what would help.
        reason: String,
    },
}

/// A function error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub cause: Cause,
    /// The record at fault, as an index in the batch: the current record of a record-mode
    /// handler, or the hint of another one.
    pub record: Option<u32>,
}

/// What went wrong in a handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// The handler returned an error.
    HandlerError {
        /// The error's type, as in Lambda's `errorType`.
        error_type: String,
        /// The error's message.
        message: String,
    },
    /// A WebAssembly trap other than the ones below.
    Trap {
        /// The trap's name, for instance `unreachable` or `memory out of bounds`.
        trap: String,
        /// The panic's message, when the guest left one on its standard error.
        message: String,
        /// The guest's stack, innermost first.
        frames: Vec<Frame>,
    },
    /// The fuel was used up.
    OutOfFuel {
        /// The limit, in units of fuel.
        allowed: u64,
        /// The guest's stack, innermost first.
        frames: Vec<Frame>,
    },
    /// The wall clock ran out.
    TimedOut {
        /// The limit.
        allowed: Duration,
        /// Fuel used until then.
        fuel_used: u64,
    },
    /// Memory or a table would have grown past its limit.
    OutOfMemory {
        /// Bytes (memory) or elements (table) that the guest asked for.
        asked: u64,
        /// The limit in the same unit.
        allowed: u64,
        /// The guest's stack, innermost first.
        frames: Vec<Frame>,
    },
    /// The guest ended its own process.
    Exited {
        /// The exit code; 0 too is a failure in the middle of a batch.
        code: i32,
    },
    /// The effects passed their limit.
    EffectsExceeded {
        /// Bytes or items that the effects would have had.
        asked: u64,
        /// The limit.
        allowed: u64,
        /// `bytes` or `items`.
        unit: String,
    },
    /// The answer or response passed its limit.
    ResponseTooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        allowed: u64,
    },
    /// The answer broke the ABI: malformed bytes, or `progress` out of order.
    BadAnswer {
        /// What was wrong.
        reason: String,
    },
    /// The effects could not be committed, for instance for want of a stream that was emitted to.
    EffectsRefused {
        /// What was refused, and why.
        reason: String,
    },
}

impl Cause {
    /// Whether the limit is shared by the whole batch, so that running into it says nothing
    /// against the current record unless that record was the first.
    pub fn is_shared_limit(&self) -> bool {
        matches!(
            self,
            Self::OutOfFuel { .. } | Self::TimedOut { .. } | Self::EffectsExceeded { .. }
        )
    }

    /// Whether the guest broke the contract, so that nothing it said can be kept.
    pub fn breaks_contract(&self) -> bool {
        matches!(self, Self::BadAnswer { .. } | Self::ResponseTooLarge { .. })
    }

    /// Whether the host refused effects after the handler had ended: they cannot be told apart
    /// by record any more.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::EffectsRefused { .. })
    }

    /// A word for tables and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HandlerError { .. } => "handler_error",
            Self::Trap { .. } => "trap",
            Self::OutOfFuel { .. } => "out_of_fuel",
            Self::TimedOut { .. } => "timed_out",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::Exited { .. } => "exited",
            Self::EffectsExceeded { .. } => "effects_exceeded",
            Self::ResponseTooLarge { .. } => "response_too_large",
            Self::BadAnswer { .. } => "bad_answer",
            Self::EffectsRefused { .. } => "effects_refused",
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HandlerError {
                error_type,
                message,
            } => write!(f, "{error_type}: {message}"),
            Self::Trap { trap, message, .. } if message.is_empty() => write!(f, "trap: {trap}"),
            Self::Trap { trap, message, .. } => write!(f, "trap: {trap}: {message}"),
            Self::OutOfFuel { allowed, .. } => write!(f, "out of fuel: all {allowed} units used"),
            Self::TimedOut { allowed, fuel_used } => {
                write!(
                    f,
                    "timed out after {:.3} s, {fuel_used} fuel used",
                    allowed.as_secs_f64()
                )
            }
            Self::OutOfMemory { asked, allowed, .. } => {
                write!(f, "out of memory: {asked} asked, {allowed} allowed")
            }
            Self::Exited { code } => write!(f, "the handler exited with code {code}"),
            Self::EffectsExceeded {
                asked,
                allowed,
                unit,
            } => {
                write!(f, "effects of {asked} {unit}, {allowed} allowed")
            }
            Self::ResponseTooLarge { size, allowed } => {
                write!(f, "response of {size} bytes, {allowed} allowed")
            }
            Self::BadAnswer { reason } => write!(f, "malformed answer: {reason}"),
            Self::EffectsRefused { reason } => write!(f, "effects refused: {reason}"),
        }
    }
}

/// One frame of a guest's stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The function's demangled name, or its index as `func[7]`.
    pub function: String,
    /// The function's index in the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Offset of the instruction in the module, bytes. `None` for an instruction that the
    /// compiler has taken over from a function that it inlined: it keeps no offset there.
    pub module_offset: Option<u64>,
}
