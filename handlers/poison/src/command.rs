//! The commands that a poison record holds as its data. Every one that comes to its end also adds
//! 1 to the counter `done`.
//!
//! | data | what happens |
//! | --- | --- |
//! | `ok` | nothing else |
//! | `count NAME` | adds 1 to the counter |
//! | `state NAME` | adds 1 to a number in keyed state |
//! | `emit STREAM [DATA]` | emits a record with the same key |
//! | `loop STREAM` | emits the record itself |
//! | `log TEXT` | writes to the log |
//! | `sleep MS` | sleeps |
//! | `error` | returns an error of type `Commanded` |
//! | `fail` | fails the record only: in batch and event mode, through the response |
//! | `panic` | panics |
//! | `spin` | never returns |
//! | `grow` | takes memory until there is none |
//! | `exit` | ends the process with code 3 |

use std::hint::black_box;
use std::process;
use std::thread;
use std::time::Duration;

use shardmill_guest::{Context, Error, Level};

/// What became of a command that returned.
pub(crate) enum Verdict {
    /// It came to its end, and was counted.
    Done,
    /// The record is to be reported as failed.
    Failed,
}

/// Runs one command.
///
/// # Errors
/// The command says so, or there is no such command, or the host refuses a call.
pub(crate) fn run(text: &str, key: &str, ctx: &mut Context) -> Result<Verdict, Error> {
    let (command, rest) = text.split_once(' ').unwrap_or((text, ""));
    match command {
        "ok" => {}
        "count" => ctx.counter_add(rest, 1),
        "state" => {
            let number: u64 = ctx.state().get(rest)?.unwrap_or(0);
            ctx.state().set(rest, number + 1)?;
        }
        "emit" => {
            let (stream, data) = rest.split_once(' ').unwrap_or((rest, "ok"));
            ctx.emit(stream, key, data)?;
        }
        "loop" => ctx.emit(rest, key, text)?,
        "log" => ctx.log(Level::Info, rest),
        "sleep" => sleep(Duration::from_millis(rest.parse()?)),
        "error" => return Err(Error::new("Commanded", "the record says error")),
        "fail" => return Ok(Verdict::Failed),
        "panic" => panic!("the record says panic"),
        "spin" => spin(),
        "grow" => grow(),
        "exit" => process::exit(3),
        _ => return Err(Error::new("UnknownCommand", text)),
    }
    ctx.counter_add("done", 1);
    Ok(Verdict::Done)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a handler that sleeps is what this command is"
)]
fn sleep(time: Duration) {
    thread::sleep(time);
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns).wrapping_add(1);
    }
}

/// Takes memory and leaves it untouched: filling it would use up the fuel first.
fn grow() -> ! {
    let mut taken = Vec::new();
    loop {
        taken.push(black_box(Vec::<u8>::with_capacity(1024 * 1024)));
    }
}
