//! The host calls for components: `guest-sdk/wit/shardmill.wit`. The same effects, limits and
//! prices as for core modules; what crosses has been copied when it is paid for, at most
//! `MAX_LIFTED_BYTES` a call.

use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower};
use wasmtime::{Result, StoreContextMut};

use shardmill_core::limits::MAX_LOG_BYTES;
use shardmill_core::sandbox::LogLevel;

use crate::calls::{COUNTER_FUEL, EMIT_FUEL, LOG_FUEL, PROGRESS_FUEL, STATE_FUEL};
use crate::effects::{Called, Code};
use crate::guest::{Guest, charge, mark};

/// What the interface holds.
pub(super) const OFFERED: [&str; 9] = [
    "problem",
    "level",
    "progress",
    "state-get",
    "state-set",
    "state-delete",
    "counter-add",
    "emit",
    "log",
];

/// Why a call was refused.
#[derive(Clone, Copy, ComponentType, Lower, Lift)]
#[component(enum)]
#[repr(u8)]
enum Problem {
    #[component(name = "no-record")]
    NoRecord,
    #[component(name = "bad-argument")]
    BadArgument,
    #[component(name = "unknown-index")]
    UnknownIndex,
}

#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the derived code makes them")]
enum Level {
    #[component(name = "error")]
    Error,
    #[component(name = "warn")]
    Warn,
    #[component(name = "info")]
    Info,
    #[component(name = "debug")]
    Debug,
    #[component(name = "trace")]
    Trace,
}

type Store<'a> = StoreContextMut<'a, Guest>;
/// What a call returns, as the one element of its results.
type Returned<T> = Result<(Result<T, Problem>,)>;

/// Offers the calls to a component.
pub(super) fn add(mut linker: LinkerInstance<'_, Guest>) -> Result<()> {
    linker.func_wrap("progress", |mut store: Store<'_>, (index,): (u32,)| {
        charge(&mut store, PROGRESS_FUEL)?;
        let called = store.data_mut().effects.progress(index);
        if matches!(called, Ok(Ok(()))) && store.data().effects.is_by_record() {
            mark(&mut store)?;
        }
        returned(called)
    })?;
    linker.func_wrap("state-get", |mut store: Store<'_>, (name,): (String,)| {
        charge(&mut store, STATE_FUEL + name.len() as u64)?;
        let guest = store.data_mut();
        match guest.effects.state_get(name.as_bytes(), &*guest.state)? {
            Ok(value) => {
                charge(&mut store, value.len() as u64)?;
                Ok((Ok(Some(value.to_vec())),))
            }
            Err(Code::Absent) => Ok((Ok(None),)),
            Err(code) => Ok((Err(problem(code)),)),
        }
    })?;
    linker.func_wrap(
        "state-set",
        |mut store: Store<'_>, (name, value): (String, Vec<u8>)| {
            charge(&mut store, STATE_FUEL + (name.len() + value.len()) as u64)?;
            let effects = &mut store.data_mut().effects;
            returned(effects.state_set(name.as_bytes(), Some(&value)))
        },
    )?;
    linker.func_wrap(
        "state-delete",
        |mut store: Store<'_>, (name,): (String,)| {
            charge(&mut store, STATE_FUEL + name.len() as u64)?;
            returned(store.data_mut().effects.state_set(name.as_bytes(), None))
        },
    )?;
    linker.func_wrap(
        "counter-add",
        |mut store: Store<'_>, (name, amount): (String, i64)| {
            charge(&mut store, COUNTER_FUEL + name.len() as u64)?;
            let effects = &mut store.data_mut().effects;
            returned(effects.counter_add(name.as_bytes(), amount))
        },
    )?;
    linker.func_wrap(
        "emit",
        |mut store: Store<'_>, (stream, key, data): (String, String, Vec<u8>)| {
            let bytes = stream.len() + key.len() + data.len();
            charge(&mut store, EMIT_FUEL + bytes as u64)?;
            let effects = &mut store.data_mut().effects;
            returned(effects.emit(stream.as_bytes(), key.as_bytes(), &data))
        },
    )?;
    linker.func_wrap(
        "log",
        |mut store: Store<'_>, (level, text): (Level, String)| {
            charge(&mut store, LOG_FUEL + text.len() as u64)?;
            let level = match level {
                Level::Error => LogLevel::Error,
                Level::Warn => LogLevel::Warn,
                Level::Info => LogLevel::Info,
                Level::Debug => LogLevel::Debug,
                Level::Trace => LogLevel::Trace,
            };
            let text = &text.as_bytes()[..text.len().min(MAX_LOG_BYTES)];
            store.data_mut().output.log(level, text);
            Ok(())
        },
    )
}

fn returned(called: Called<()>) -> Returned<()> {
    Ok((called?.map_err(problem),))
}

fn problem(code: Code) -> Problem {
    match code {
        Code::NoRecord => Problem::NoRecord,
        Code::BadArgument => Problem::BadArgument,
        Code::Absent | Code::Unknown => Problem::UnknownIndex,
    }
}
