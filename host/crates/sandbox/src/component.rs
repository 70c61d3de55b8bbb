//! Components as handlers: what one may import and has to export, and how it is linked.
//!
//! Two kinds are handlers: those that export `abi` and `handle` of the WIT world
//! `shardmill:handler/handler`, with the same bytes as a core module, and those that export
//! `wasi:cli/run`, as a WASI command. Each component gets a linker of its own, since what it
//! imports carries a version in its name.

mod host;
mod wasi;

use shardmill_core::sandbox::LoadError;
use wasmtime::Engine;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker, Type};

use crate::guest::Guest;

pub(crate) use wasi::Pollables;

/// Interface of the host calls; any 1.x will do.
const HOST: &str = "shardmill:handler/host";
/// Interface of a WASI command; any 0.2.x will do.
const RUN: &str = "wasi:cli/run";

/// Handles on resources that a guest may hold at a time: the host keeps a table of them.
pub(crate) const MAX_HANDLES: usize = 4096;
/// Most that a guest may hand over in one call or as its answer, bytes: above every limit on
/// what is taken.
pub(crate) const MAX_LIFTED_BYTES: usize = 8 << 20;

/// A component with the exports that are called.
pub(crate) struct ComponentCode {
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) exports: Exports,
}

/// Where a component is called.
pub(crate) enum Exports {
    /// The world `handler`.
    Handler {
        abi: ComponentExportIndex,
        handle: ComponentExportIndex,
    },
    /// `wasi:cli/run`.
    Command { run: ComponentExportIndex },
}

impl ComponentCode {
    /// Whether it is a WASI command.
    pub(crate) fn is_command(&self) -> bool {
        matches!(self.exports, Exports::Command { .. })
    }
}

/// Whether these bytes begin as a component: layer 1, where a core module has its version.
pub(crate) fn is_component(wasm: &[u8]) -> bool {
    wasm.starts_with(b"\0asm\x0d\0\x01\0")
}

/// Links what is compiled, and finds its exports.
pub(crate) fn link(engine: &Engine, component: &Component) -> Result<ComponentCode, LoadError> {
    let exports = exports(engine, component)?;
    let mut linker = Linker::new(engine);
    linker.allow_shadowing(true);
    for (name, import) in component.component_type().imports(engine) {
        let refused = |function: &str| LoadError::Import {
            module: name.into(),
            name: function.into(),
        };
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            return Err(refused(""));
        };
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        if path == HOST && version.starts_with("1.") {
            let unknown = |(function, _): &(&str, _)| !host::OFFERED.contains(function);
            if let Some((function, _)) = interface.exports(engine).find(unknown) {
                return Err(refused(function));
            }
            linker.instance(name).and_then(host::add)
        } else if wasi::is_offered(path) && version.starts_with("0.2.") {
            linker
                .instance(name)
                .and_then(|linker| wasi::add(linker, path, interface.exports(engine)))
        } else {
            return Err(refused(""));
        }
        .map_err(|error| LoadError::Abi(format!("import {name:?}: {error:#}")))?;
    }
    let pre = linker
        .instantiate_pre(component)
        .map_err(|error| LoadError::Abi(format!("{error:#}")))?;
    Ok(ComponentCode { pre, exports })
}

fn exports(engine: &Engine, component: &Component) -> Result<Exports, LoadError> {
    let handler = ["abi", "handle"].map(|name| component.get_export_index(None, name));
    let run = find_run(engine, component);
    match (handler, run) {
        ([None, None], None) => Err(LoadError::Abi(
            "component exports neither abi and handle (world shardmill:handler/handler) nor wasi:cli/run@0.2 \
             (WASI command)"
                .into(),
        )),
        ([None, None], Some(run)) => Ok(Exports::Command { run }),
        (_, Some(_)) => Err(LoadError::Abi(
            "component exports both abi or handle and wasi:cli/run: it can be a handler of the packed ABI or a \
             WASI command, not both"
                .into(),
        )),
        ([abi, handle], None) => Ok(Exports::Handler {
            abi: checked(engine, component, ("abi", "func() -> u32", is_abi), abi)?,
            handle: checked(
                engine,
                component,
                ("handle", "func(batch: list<u8>) -> result<list<u8>, string>", is_handle),
                handle,
            )?,
        }),
    }
}

fn checked(
    engine: &Engine,
    component: &Component,
    (name, expected, fits): (&str, &str, fn(&ComponentFunc) -> bool),
    index: Option<ComponentExportIndex>,
) -> Result<ComponentExportIndex, LoadError> {
    let ty = component.component_type();
    let export = ty.get_export(engine, name);
    let good = match export.map(|export| export.ty) {
        Some(ComponentItem::ComponentFunc(ty)) => fits(&ty),
        _ => false,
    };
    index
        .filter(|_| good)
        .ok_or_else(|| LoadError::Abi(format!("component must export {name}: {expected}")))
}

fn is_abi(ty: &ComponentFunc) -> bool {
    ty.params().len() == 0 && matches!(one(ty.results()), Some(Type::U32))
}

fn is_handle(ty: &ComponentFunc) -> bool {
    let returns = match one(ty.results()) {
        Some(Type::Result(result)) => {
            is_bytes(result.ok()) && matches!(result.err(), Some(Type::String))
        }
        _ => false,
    };
    returns && is_bytes(one(ty.params().map(|(_, ty)| ty)))
}

fn is_bytes(ty: Option<Type>) -> bool {
    matches!(ty, Some(Type::List(list)) if matches!(list.ty(), Type::U8))
}

fn one(mut types: impl ExactSizeIterator<Item = Type>) -> Option<Type> {
    if types.len() == 1 { types.next() } else { None }
}

fn find_run(engine: &Engine, component: &Component) -> Option<ComponentExportIndex> {
    let ty = component.component_type();
    let name = ty.exports(engine).map(|(name, _)| name).find(|name| {
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        path == RUN && version.starts_with("0.2.")
    })?;
    let interface = component.get_export_index(None, name)?;
    component.get_export_index(Some(&interface), "run")
}
