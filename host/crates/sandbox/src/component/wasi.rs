//! WASI 0.2 for a component that has nothing, with the same answers as the preview 1 beside it
//! (`crate::wasi`): standard streams, environment variables, a wall clock that stands still, a
//! monotonic clock that steps, seeded randomness, no directory, no network.
//!
//! Toolchains import whole interfaces whether a handler uses them or not. What is not here is
//! linked all the same and ends the invocation when it is called, by its name. Most of it cannot
//! be called at all: a descriptor or a socket would have to be there first.

mod io;
mod system;

use wasmtime::component::types::{ComponentExtern, ComponentItem};
use wasmtime::component::{LinkerInstance, ResourceType};
use wasmtime::{Result, StoreContextMut};

use crate::guest::{Guest, charge};
use crate::trap::Stop;

pub(crate) use io::Pollables;

/// A call's price; each byte that crosses costs one more.
const CALL_FUEL: u64 = 100;

type Store<'a> = StoreContextMut<'a, Guest>;
type Linker<'a> = LinkerInstance<'a, Guest>;

/// `wasi:io/poll.pollable`.
pub(super) struct Pollable;
/// `wasi:io/error.error`; none is ever made.
pub(super) struct IoError;
/// `wasi:io/streams.input-stream`: standard input.
pub(super) struct InputStream;
/// `wasi:io/streams.output-stream`: [`io::STDOUT`] or [`io::STDERR`].
pub(super) struct OutputStream;
/// `wasi:filesystem/types.descriptor`; none is ever made.
pub(super) struct Descriptor;
/// `wasi:sockets/network.network`.
pub(super) struct Network;
/// A terminal; none is ever made.
pub(super) struct Terminal;
/// A resource that nothing here hands out.
struct Other;

/// Whether components may import this interface.
pub(super) fn is_offered(path: &str) -> bool {
    const PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];
    let package = path.strip_prefix("wasi:").and_then(|p| p.split_once('/'));
    package.is_some_and(|(package, interface)| {
        PACKAGES.contains(&package) && !(package == "cli" && interface == "run")
    })
}

/// Offers one interface, whatever is in it.
pub(super) fn add<'a>(
    mut linker: Linker<'_>,
    path: &str,
    items: impl Iterator<Item = (&'a str, ComponentExtern<'a>)>,
) -> Result<()> {
    for (name, item) in items {
        match item.ty {
            ComponentItem::ComponentFunc(_) => {
                let missing = format!("{path}#{name} is not offered");
                linker.func_new(name, move |mut store, _, _, _| {
                    charge(&mut store, CALL_FUEL)?;
                    Err(Stop::Misuse(missing.clone()).into())
                })?;
            }
            ComponentItem::Resource(_) => resource(&mut linker, name)?,
            _ => {}
        }
    }
    match path {
        "wasi:io/poll" => io::add_poll(linker),
        "wasi:io/streams" => io::add_streams(linker),
        "wasi:io/error" => io::add_error(linker),
        "wasi:cli/stdin" => io::add_stdin(linker),
        "wasi:cli/stdout" => io::add_output(linker, "get-stdout", io::STDOUT),
        "wasi:cli/stderr" => io::add_output(linker, "get-stderr", io::STDERR),
        _ => system::add(linker, path),
    }
}

/// A resource has one type wherever it is named.
fn resource(linker: &mut Linker<'_>, name: &str) -> Result<()> {
    if name == "pollable" {
        return linker.resource(name, ResourceType::host::<Pollable>(), |mut store, rep| {
            store.data_mut().wasi.pollables.remove(rep);
            Ok(())
        });
    }
    let ty = match name {
        "error" => ResourceType::host::<IoError>(),
        "input-stream" => ResourceType::host::<InputStream>(),
        "output-stream" => ResourceType::host::<OutputStream>(),
        "descriptor" => ResourceType::host::<Descriptor>(),
        "network" => ResourceType::host::<Network>(),
        "terminal-input" | "terminal-output" => ResourceType::host::<Terminal>(),
        _ => ResourceType::host::<Other>(),
    };
    linker.resource(name, ty, |_, _| Ok(()))
}
