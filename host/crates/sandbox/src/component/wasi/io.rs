//! `wasi:io` and the standard streams of `wasi:cli`. Nothing here ever blocks but a pollable of a
//! clock: input is there or at its end, and output is always taken.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{ComponentType, Lift, Lower, Resource};
use wasmtime::{Result, StoreContextMut};

use super::{CALL_FUEL, InputStream, IoError, Linker, OutputStream, Pollable, Store};
use crate::guest::{Guest, charge, tell_burnt};
use crate::meter;
use crate::output::Stream;
use crate::trap::Stop;

/// Number of standard output among output streams.
pub(super) const STDOUT: u32 = 1;
/// Number of standard error.
pub(super) const STDERR: u32 = 2;

/// Most that one read returns and one write is invited to bring, bytes.
const PIECE_BYTES: u64 = 64 << 10;

#[derive(ComponentType, Lower, Lift)]
#[component(variant)]
enum StreamError {
    /// Part of the type; no operation fails.
    #[component(name = "last-operation-failed")]
    Failed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

type Streamed<T> = Result<(Result<T, StreamError>,)>;
type In = Resource<InputStream>;
type Out = Resource<OutputStream>;

pub(super) fn add_error(mut linker: Linker<'_>) -> Result<()> {
    linker.func_wrap(
        "[method]error.to-debug-string",
        |mut store: Store<'_>, (_,): (Resource<IoError>,)| {
            charge(&mut store, CALL_FUEL)?;
            Ok((String::new(),))
        },
    )
}

pub(super) fn add_stdin(mut linker: Linker<'_>) -> Result<()> {
    linker.func_wrap("get-stdin", |mut store: Store<'_>, (): ()| {
        charge(&mut store, CALL_FUEL)?;
        Ok((In::new_own(0),))
    })
}

pub(super) fn add_output(mut linker: Linker<'_>, name: &str, rep: u32) -> Result<()> {
    linker.func_wrap(name, move |mut store: Store<'_>, (): ()| {
        charge(&mut store, CALL_FUEL)?;
        Ok((Out::new_own(rep),))
    })
}

pub(super) fn add_streams(mut linker: Linker<'_>) -> Result<()> {
    for name in ["read", "blocking-read"] {
        linker.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut store: Store<'_>, (_, len): (In, u64)| read(&mut store, len),
        )?;
    }
    for name in ["skip", "blocking-skip"] {
        linker.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut store: Store<'_>, (_, len): (In, u64)| skip(&mut store, len),
        )?;
    }
    for name in ["write", "blocking-write-and-flush"] {
        linker.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store: Store<'_>, (stream, bytes): (Out, Vec<u8>)| {
                write(&mut store, &stream, &bytes)
            },
        )?;
    }
    for name in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        linker.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store: Store<'_>, (stream, len): (Out, u64)| {
                if len > PIECE_BYTES {
                    return Err(Stop::Misuse(format!(
                        "write of {len} zeroes where {PIECE_BYTES} bytes were permitted"
                    ))
                    .into());
                }
                write(&mut store, &stream, &vec![0; len as usize])
            },
        )?;
    }
    for name in ["flush", "blocking-flush"] {
        linker.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store: Store<'_>, (_,): (Out,)| -> Streamed<()> {
                charge(&mut store, CALL_FUEL)?;
                Ok((Ok(()),))
            },
        )?;
    }
    linker.func_wrap(
        "[method]output-stream.check-write",
        |mut store: Store<'_>, (_,): (Out,)| -> Streamed<u64> {
            charge(&mut store, CALL_FUEL)?;
            Ok((Ok(PIECE_BYTES),))
        },
    )?;
    for name in ["splice", "blocking-splice"] {
        linker.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store: Store<'_>, (to, _, len): (Out, In, u64)| -> Streamed<u64> {
                let bytes = match read(&mut store, len)? {
                    (Ok(bytes),) => bytes,
                    (Err(error),) => return Ok((Err(error),)),
                };
                let (written,) = write(&mut store, &to, &bytes)?;
                Ok((written.map(|()| bytes.len() as u64),))
            },
        )?;
    }
    linker.func_wrap(
        "[method]input-stream.subscribe",
        |mut store: Store<'_>, (_,): (In,)| ready(&mut store),
    )?;
    linker.func_wrap(
        "[method]output-stream.subscribe",
        |mut store: Store<'_>, (_,): (Out,)| ready(&mut store),
    )
}

fn read(store: &mut Store<'_>, len: u64) -> Streamed<Vec<u8>> {
    charge(&mut *store, CALL_FUEL)?;
    let len = len.min(PIECE_BYTES) as usize;
    let bytes = store.data_mut().wasi.read_stdin(len);
    charge(&mut *store, bytes.len() as u64)?;
    if bytes.is_empty() && len > 0 {
        return Ok((Err(StreamError::Closed),));
    }
    Ok((Ok(bytes.to_vec()),))
}

fn skip(store: &mut Store<'_>, len: u64) -> Streamed<u64> {
    let (read,) = read(store, len)?;
    Ok((read.map(|bytes| bytes.len() as u64),))
}

fn write(store: &mut Store<'_>, stream: &Out, bytes: &[u8]) -> Streamed<()> {
    charge(&mut *store, CALL_FUEL + bytes.len() as u64)?;
    let stream = if stream.rep() == STDERR {
        Stream::Stderr
    } else {
        Stream::Stdout
    };
    store.data_mut().output.write(stream, bytes);
    Ok((Ok(()),))
}

/// Pollables: instants of the monotonic clock. How many there are is bounded by the handles that
/// a guest may hold.
#[derive(Default)]
pub(crate) struct Pollables {
    instants: BTreeMap<u32, Duration>,
    last: u32,
}

impl Pollables {
    fn add(&mut self, at: Duration) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if let Entry::Vacant(free) = self.instants.entry(self.last) {
                free.insert(at);
                return self.last;
            }
        }
    }

    fn instant(&self, rep: u32) -> Duration {
        self.instants.get(&rep).copied().unwrap_or_default()
    }

    pub(super) fn remove(&mut self, rep: u32) {
        self.instants.remove(&rep);
    }
}

/// A pollable that is ready from the beginning.
fn ready(store: &mut Store<'_>) -> Result<(Resource<Pollable>,)> {
    pollable(store, Duration::ZERO)
}

/// A pollable that is ready at an instant of the monotonic clock.
pub(super) fn pollable(store: &mut Store<'_>, at: Duration) -> Result<(Resource<Pollable>,)> {
    charge(&mut *store, CALL_FUEL)?;
    let rep = store.data_mut().wasi.pollables.add(at);
    Ok((Resource::new_own(rep),))
}

pub(super) fn add_poll(mut linker: Linker<'_>) -> Result<()> {
    linker.func_wrap(
        "[method]pollable.ready",
        |mut store: Store<'_>, (one,): (Resource<Pollable>,)| {
            charge(&mut store, CALL_FUEL)?;
            let wasi = &mut store.data_mut().wasi;
            let now = wasi.read_monotonic();
            Ok((instant(&store, &one) <= now,))
        },
    )?;
    linker.func_wrap_async(
        "[method]pollable.block",
        |mut store: Store<'_>, (one,): (Resource<Pollable>,)| {
            Box::new(async move {
                poll(&mut store, &[one]).await?;
                Ok(())
            })
        },
    )?;
    linker.func_wrap_async(
        "poll",
        |mut store: Store<'_>, (all,): (Vec<Resource<Pollable>>,)| {
            Box::new(async move { Ok((poll(&mut store, &all).await?,)) })
        },
    )
}

fn instant(store: &StoreContextMut<'_, Guest>, one: &Resource<Pollable>) -> Duration {
    store.data().wasi.pollables.instant(one.rep())
}

/// Waits for the earliest, and tells which are ready then.
async fn poll(store: &mut Store<'_>, all: &[Resource<Pollable>]) -> Result<Vec<u32>> {
    charge(&mut *store, CALL_FUEL + 8 * all.len() as u64)?;
    let instants: Vec<_> = all.iter().map(|one| instant(store, one)).collect();
    let Some(first) = instants.iter().min().copied() else {
        return Err(Stop::Misuse("poll of no pollables".into()).into());
    };
    let guest = store.data_mut();
    let wait = first.saturating_sub(guest.wasi.read_monotonic());
    if !wait.is_zero() {
        let signals = Arc::clone(&guest.signals);
        if guest.wasi.pass(wait) {
            tell_burnt(&mut *store)?;
            meter::sleep(&signals, wait).await;
        }
    }
    let now = first.max(store.data().wasi.monotonic());
    let ready = (0..).zip(instants).filter(|(_, at)| *at <= now);
    Ok(ready.map(|(index, _)| index).collect())
}
