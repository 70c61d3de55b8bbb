//! The rest of WASI 0.2: environment, exit, clocks, randomness; and what tells a guest that it has
//! neither terminals, directories nor a network.

use std::time::Duration;

use wasmtime::Result;
use wasmtime::component::{ComponentType, Lift, Lower, Resource, Val};

use super::io::pollable;
use super::{CALL_FUEL, Descriptor, Linker, Network, Store, Terminal};
use crate::guest::charge;
use crate::trap::Stop;
use crate::wasi::{CLOCK_STEP, nanos};

/// Most random bytes of one call: the host makes them before the guest has room for them.
const MAX_RANDOM_BYTES: u64 = 1 << 20;

/// Directories that are open from the beginning, with their names.
type Directories = Vec<(Resource<Descriptor>, String)>;

pub(super) fn add(mut linker: Linker<'_>, path: &str) -> Result<()> {
    match path {
        "wasi:cli/environment" => add_environment(linker),
        "wasi:cli/exit" => add_exit(linker),
        "wasi:cli/terminal-stdin" => add_terminal(linker, "get-terminal-stdin"),
        "wasi:cli/terminal-stdout" => add_terminal(linker, "get-terminal-stdout"),
        "wasi:cli/terminal-stderr" => add_terminal(linker, "get-terminal-stderr"),
        "wasi:clocks/wall-clock" => add_wall_clock(linker),
        "wasi:clocks/monotonic-clock" => add_monotonic_clock(linker),
        "wasi:random/random" => add_random(linker, "get-random-bytes", "get-random-u64"),
        "wasi:random/insecure" => add_random(
            linker,
            "get-insecure-random-bytes",
            "get-insecure-random-u64",
        ),
        "wasi:random/insecure-seed" => linker.func_wrap(
            "insecure-seed",
            |mut store: Store<'_>, (): ()| -> Result<((u64, u64),)> {
                charge(&mut store, CALL_FUEL + 16)?;
                let wasi = &mut store.data_mut().wasi;
                Ok(((wasi.random_u64(), wasi.random_u64()),))
            },
        ),
        "wasi:filesystem/preopens" => linker.func_wrap(
            "get-directories",
            |mut store: Store<'_>, (): ()| -> Result<(Directories,)> {
                charge(&mut store, CALL_FUEL)?;
                Ok((Vec::new(),))
            },
        ),
        "wasi:filesystem/types" => answer(linker, "filesystem-error-code", || Val::Option(None)),
        "wasi:sockets/instance-network" => {
            linker.func_wrap("instance-network", |mut store: Store<'_>, (): ()| {
                charge(&mut store, CALL_FUEL)?;
                Ok((Resource::<Network>::new_own(0),))
            })
        }
        "wasi:sockets/tcp-create-socket" => answer(linker, "create-tcp-socket", denied),
        "wasi:sockets/udp-create-socket" => answer(linker, "create-udp-socket", denied),
        "wasi:sockets/ip-name-lookup" => answer(linker, "resolve-addresses", denied),
        _ => Ok(()),
    }
}

/// The error of every attempt to reach a network.
fn denied() -> Val {
    Val::Result(Err(Some(Box::new(Val::Enum("access-denied".into())))))
}

/// A function whose answer is always the same.
fn answer(mut linker: Linker<'_>, name: &str, value: fn() -> Val) -> Result<()> {
    linker.func_new(name, move |mut store: Store<'_>, _, params, results| {
        charge(&mut store, CALL_FUEL)?;
        for param in params {
            // What was lent is given back.
            if let Val::Resource(lent) = param {
                lent.resource_drop(&mut store)?;
            }
        }
        results[0] = value();
        Ok(())
    })
}

fn add_environment(mut linker: Linker<'_>) -> Result<()> {
    linker.func_wrap(
        "get-environment",
        |mut store: Store<'_>, (): ()| -> Result<(Vec<(String, String)>,)> {
            let environment = store.data().wasi.environment().clone();
            let bytes: usize = environment.iter().map(|(n, v)| n.len() + v.len()).sum();
            charge(&mut store, CALL_FUEL + bytes as u64)?;
            let pairs = environment.iter().map(|(n, v)| (n.clone(), v.clone()));
            Ok((pairs.collect(),))
        },
    )?;
    linker.func_wrap(
        "get-arguments",
        |mut store: Store<'_>, (): ()| -> Result<(Vec<String>,)> {
            charge(&mut store, CALL_FUEL)?;
            Ok((Vec::new(),))
        },
    )?;
    linker.func_wrap(
        "initial-cwd",
        |mut store: Store<'_>, (): ()| -> Result<(Option<String>,)> {
            charge(&mut store, CALL_FUEL)?;
            Ok((None,))
        },
    )
}

fn add_exit(mut linker: Linker<'_>) -> Result<()> {
    linker.func_wrap(
        "exit",
        |_: Store<'_>, (status,): (Result<(), ()>,)| -> Result<()> {
            Err(Stop::Exit(i32::from(status.is_err())).into())
        },
    )?;
    linker.func_wrap(
        "exit-with-code",
        |_: Store<'_>, (code,): (u8,)| -> Result<()> { Err(Stop::Exit(code.into()).into()) },
    )
}

fn add_terminal(mut linker: Linker<'_>, name: &str) -> Result<()> {
    linker.func_wrap(
        name,
        |mut store: Store<'_>, (): ()| -> Result<(Option<Resource<Terminal>>,)> {
            charge(&mut store, CALL_FUEL)?;
            Ok((None,))
        },
    )
}

#[derive(Clone, Copy, ComponentType, Lower, Lift)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl From<Duration> for Datetime {
    fn from(since_the_epoch: Duration) -> Self {
        Self {
            seconds: since_the_epoch.as_secs(),
            nanoseconds: since_the_epoch.subsec_nanos(),
        }
    }
}

fn add_wall_clock(mut linker: Linker<'_>) -> Result<()> {
    linker.func_wrap("now", |mut store: Store<'_>, (): ()| {
        charge(&mut store, CALL_FUEL)?;
        Ok((Datetime::from(store.data().wasi.wall()),))
    })?;
    linker.func_wrap("resolution", |mut store: Store<'_>, (): ()| {
        charge(&mut store, CALL_FUEL)?;
        Ok((Datetime::from(CLOCK_STEP),))
    })
}

fn add_monotonic_clock(mut linker: Linker<'_>) -> Result<()> {
    linker.func_wrap("now", |mut store: Store<'_>, (): ()| {
        charge(&mut store, CALL_FUEL)?;
        Ok((nanos(store.data_mut().wasi.read_monotonic()),))
    })?;
    linker.func_wrap("resolution", |mut store: Store<'_>, (): ()| {
        charge(&mut store, CALL_FUEL)?;
        Ok((nanos(CLOCK_STEP),))
    })?;
    linker.func_wrap(
        "subscribe-instant",
        |mut store: Store<'_>, (when,): (u64,)| pollable(&mut store, Duration::from_nanos(when)),
    )?;
    linker.func_wrap(
        "subscribe-duration",
        |mut store: Store<'_>, (span,): (u64,)| {
            let now = store.data_mut().wasi.read_monotonic();
            pollable(&mut store, now.saturating_add(Duration::from_nanos(span)))
        },
    )
}

fn add_random(mut linker: Linker<'_>, bytes: &str, number: &str) -> Result<()> {
    linker.func_wrap(bytes, |mut store: Store<'_>, (len,): (u64,)| {
        charge(&mut store, CALL_FUEL.saturating_add(len))?;
        if len > MAX_RANDOM_BYTES {
            let reason = format!("{len} random bytes in one call, {MAX_RANDOM_BYTES} allowed");
            return Err(Stop::Misuse(reason).into());
        }
        let mut bytes = vec![0; len as usize];
        store.data_mut().wasi.fill_random(&mut bytes);
        Ok((bytes,))
    })?;
    linker.func_wrap(number, |mut store: Store<'_>, (): ()| {
        charge(&mut store, CALL_FUEL + 8)?;
        Ok((store.data_mut().wasi.random_u64(),))
    })
}
