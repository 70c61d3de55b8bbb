//! Says what a failure was: a trap by its name, with the panic's message and the guest's stack, a
//! limit with what was asked and allowed. What is not the guest's doing is told apart, since it
//! must not use one of its attempts.

use shardmill_core::limits::MAX_FRAME_NAME_BYTES;
use shardmill_core::outcome::{Cause, Frame};
use wasmtime::{Error, PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::limiter::Refused;

/// Frames of a guest's stack in a report. A Rust panic alone has a dozen.
pub(crate) const MAX_FRAMES: usize = 40;

/// Why a host call ended its attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stop {
    #[error("out of fuel")]
    OutOfFuel,
    #[error("effects of {asked} {unit}, {allowed} allowed")]
    EffectsExceeded {
        asked: u64,
        allowed: u64,
        unit: &'static str,
    },
    #[error("progress({index}) in a batch of {count}, where {expected} comes next")]
    OutOfOrder {
        index: u32,
        expected: u32,
        count: u32,
    },
    #[error("read keyed state: {0}")]
    State(String),
    #[error("exit with code {0}")]
    Exit(i32),
    #[error("{0}")]
    BadAnswer(String),
    #[error("answer of {size} bytes, {allowed} allowed")]
    TooLarge { size: u64, allowed: u64 },
    /// A call that the host has no answer to.
    #[error("{0}")]
    Misuse(String),
}

/// What is known about an attempt beside its error.
pub(crate) struct Circumstances<'a> {
    pub(crate) fuel_allowed: u64,
    pub(crate) refused: Option<Refused>,
    pub(crate) stderr_tail: &'a str,
    /// Whether the guest is a component: what breaks the canonical ABI has no trap of its own.
    pub(crate) is_component: bool,
}

/// A guest's failure; or, when it was not the guest's, the reason for a throttle.
pub(crate) fn cause(error: &Error, circumstances: &Circumstances<'_>) -> Result<Cause, String> {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stopped(stop, error, circumstances.fuel_allowed);
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return Ok(trapped(*trap, error, circumstances));
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Err("no free slot for an instance: raise the sandbox's concurrency".into());
    }
    if let Some(Refused { asked, allowed }) = circumstances.refused {
        return Ok(Cause::OutOfMemory {
            asked,
            allowed,
            frames: frames(error),
        });
    }
    if circumstances.is_component && !error.is::<std::io::Error>() {
        return Ok(Cause::Trap {
            trap: error.root_cause().to_string(),
            message: panic_message(circumstances.stderr_tail).unwrap_or_default(),
            frames: frames(error),
        });
    }
    Err(format!("{error:#}"))
}

fn stopped(stop: &Stop, error: &Error, fuel_allowed: u64) -> Result<Cause, String> {
    Ok(match stop {
        Stop::OutOfFuel => Cause::OutOfFuel {
            allowed: fuel_allowed,
            frames: frames(error),
        },
        Stop::EffectsExceeded {
            asked,
            allowed,
            unit,
        } => Cause::EffectsExceeded {
            asked: *asked,
            allowed: *allowed,
            unit: (*unit).into(),
        },
        Stop::Exit(code) => Cause::Exited { code: *code },
        Stop::TooLarge { size, allowed } => Cause::ResponseTooLarge {
            size: *size,
            allowed: *allowed,
        },
        Stop::Misuse(what) => Cause::Trap {
            trap: what.clone(),
            message: String::new(),
            frames: frames(error),
        },
        Stop::OutOfOrder { .. } | Stop::BadAnswer(_) => Cause::BadAnswer {
            reason: stop.to_string(),
        },
        Stop::State(_) => return Err(stop.to_string()),
    })
}

fn trapped(trap: Trap, error: &Error, circumstances: &Circumstances<'_>) -> Cause {
    let frames = frames(error);
    let panic = panic_message(circumstances.stderr_tail);
    match (trap, circumstances.refused) {
        (Trap::OutOfFuel, _) => Cause::OutOfFuel {
            allowed: circumstances.fuel_allowed,
            frames,
        },
        // An allocator that is refused memory aborts without a panic.
        (Trap::UnreachableCodeReached, Some(Refused { asked, allowed })) if panic.is_none() => {
            Cause::OutOfMemory {
                asked,
                allowed,
                frames,
            }
        }
        _ => Cause::Trap {
            trap: name(trap),
            message: panic.unwrap_or_default(),
            frames,
        },
    }
}

/// The name of a trap, as Shardmill's reports spell it.
fn name(trap: Trap) -> String {
    match trap {
        Trap::UnreachableCodeReached => "unreachable".into(),
        Trap::StackOverflow => "stack overflow".into(),
        Trap::MemoryOutOfBounds => "memory out of bounds".into(),
        Trap::TableOutOfBounds => "table out of bounds".into(),
        other => other.to_string().trim_start_matches("wasm trap: ").into(),
    }
}

fn frames(error: &Error) -> Vec<Frame> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let frame = |frame: &wasmtime::FrameInfo| Frame {
        function: frame
            .func_name()
            .map_or_else(|| format!("func[{}]", frame.func_index()), readable),
        index: Some(frame.func_index()),
        module_offset: frame.module_offset().map(|offset| offset as u64),
    };
    backtrace
        .frames()
        .iter()
        .take(MAX_FRAMES)
        .map(frame)
        .collect()
}

/// A function's name as its author wrote it, up to [`MAX_FRAME_NAME_BYTES`]: a mangled name may be
/// long, and grow without end.
fn readable(name: &str) -> String {
    struct Short(String);
    impl std::fmt::Write for Short {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let room = MAX_FRAME_NAME_BYTES - self.0.len();
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            if text.len() <= room {
                Ok(())
            } else {
                Err(std::fmt::Error)
            }
        }
    }
    let mut short = Short(String::new());
    // An error says that it is full.
    let _ = std::fmt::write(
        &mut short,
        format_args!("{:#}", rustc_demangle::demangle(name)),
    );
    short.0
}

/// The message of the last panic that Rust's default hook wrote to standard error: place and
/// text, without the note on backtraces.
fn panic_message(stderr_tail: &str) -> Option<String> {
    const MARK: &str = "panicked at ";
    let at = stderr_tail.rfind(MARK)? + MARK.len();
    let text: Vec<_> = stderr_tail[at..]
        .lines()
        .map(str::trim_end)
        .take_while(|line| !line.starts_with("note: run with `RUST_BACKTRACE"))
        .collect();
    Some(text.join(" ").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_at_its_bound_mangled_or_not() {
        assert_eq!(readable("_RNvCs1_1a1b"), "a::b");
        assert_eq!(readable(&"ä".repeat(2_000)), "ä".repeat(512));
        // A tuple of tuples: each step back doubles what is written.
        let mut name = "_RINvC1a1bTu".to_owned();
        for _ in 0..60 {
            name += "uETB8_";
        }
        assert!(readable(&name).len() <= MAX_FRAME_NAME_BYTES);
    }

    #[test]
    fn a_panic_is_told_by_its_place_and_text() {
        let stderr = "before\n\nthread '<unnamed>' (1) panicked at src/lib.rs:33:64:\nindex out of bounds\n\
                      note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        assert_eq!(
            panic_message(stderr).as_deref(),
            Some("src/lib.rs:33:64: index out of bounds")
        );
        assert_eq!(panic_message("memory allocation of 8 bytes failed"), None);
    }
}
