//! Checks that an upload is a handler: kind of file, size, imports, exports, ABI. Nothing of it runs here but its start function and `shardmill_abi_v1`, on an instance that is
//! thrown away, by `instance::ask_abi`.

use sha2::{Digest, Sha256};
use shardmill_core::sandbox::{Carrier, LoadError, Mode, Module};
use wasmtime::component::Component;
use wasmtime::{
    Engine, ExternType, InstancePre, Linker, ModuleExport, UnknownImportError, ValType,
};

use crate::component::{self, ComponentCode};
use crate::guest::Guest;
use crate::{calls, wasi};

/// A module that passed.
pub(crate) struct LoadedModule {
    pub(crate) digest: String,
    pub(crate) carrier: Carrier,
    pub(crate) code: Code,
}

impl Module for LoadedModule {
    fn digest(&self) -> &str {
        &self.digest
    }

    fn carrier(&self) -> Carrier {
        self.carrier
    }
}

/// What a compiler made of an upload.
pub(crate) enum Compiled {
    /// A core module.
    Module(wasmtime::Module),
    /// A component.
    Component(Component),
}

/// Compiled code, linked, with the exports that are called.
pub(crate) enum Code {
    /// A core module.
    Core(CoreCode),
    /// A component.
    Component(ComponentCode),
}

impl Code {
    /// The engine that it was compiled for.
    pub(crate) fn engine(&self) -> &Engine {
        match self {
            Self::Core(code) => code.pre.module().engine(),
            Self::Component(code) => code.pre.engine(),
        }
    }
}

/// A core module with the exports that are called.
pub(crate) struct CoreCode {
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) exports: Exports,
}

/// Where a module is called, by its carrier.
pub(crate) enum Exports {
    /// The packed ABI.
    Packed {
        /// Of a module that is a WASI reactor: called first.
        initialize: Option<ModuleExport>,
        abi: ModuleExport,
        prepare: ModuleExport,
        handle: ModuleExport,
        memory: ModuleExport,
    },
    /// A WASI command.
    Command { start: ModuleExport },
}

/// What can be imported, linked once.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    calls::add_to_linker(&mut linker)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// What can be said of an upload without compiling it.
pub(crate) fn check_upload(wasm: &[u8], allowed: usize) -> Result<(), LoadError> {
    if wasm.len() > allowed {
        return Err(LoadError::TooLarge {
            size: wasm.len(),
            allowed,
        });
    }
    refuse_by_kind(wasm)
}

/// Compiles in this process. Takes CPU time without a bound.
pub(crate) fn compile(engine: &Engine, wasm: &[u8]) -> Result<Compiled, LoadError> {
    let compiled = if component::is_component(wasm) {
        Component::from_binary(engine, wasm).map(Compiled::Component)
    } else {
        wasmtime::Module::from_binary(engine, wasm).map(Compiled::Module)
    };
    compiled.map_err(|error| LoadError::Invalid(format!("{error:#}")))
}

/// Links what is compiled, and finds its exports.
pub(crate) fn link(linker: &Linker<Guest>, compiled: &Compiled) -> Result<Code, LoadError> {
    match compiled {
        Compiled::Module(module) => link_module(linker, module).map(Code::Core),
        Compiled::Component(component) => {
            component::link(linker.engine(), component).map(Code::Component)
        }
    }
}

fn link_module(linker: &Linker<Guest>, module: &wasmtime::Module) -> Result<CoreCode, LoadError> {
    for import in module.imports() {
        if import.module() != wasi::MODULE && import.module() != calls::MODULE {
            return Err(LoadError::Import {
                module: import.module().into(),
                name: import.name().into(),
            });
        }
    }
    let exports = exports(module)?;
    let pre = linker.instantiate_pre(module).map_err(|error| {
        match error.downcast_ref::<UnknownImportError>() {
            Some(unknown) => LoadError::Import {
                module: unknown.module().into(),
                name: unknown.name().into(),
            },
            None => LoadError::Abi(format!("{error:#}")),
        }
    })?;
    Ok(CoreCode { pre, exports })
}

/// SHA-256 in hexadecimal.
pub(crate) fn digest(wasm: &[u8]) -> String {
    hex(&Sha256::digest(wasm))
}

/// Hexadecimal, in small letters.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What `shardmill_abi_v1` says, or a component's `abi`.
pub(crate) fn carrier_of(name: &str, word: u32) -> Result<Carrier, LoadError> {
    const USES_STATE: u32 = 8;
    let mode = match word & !USES_STATE {
        1 => Mode::Record,
        2 => Mode::Batch,
        4 => Mode::Event,
        _ => {
            return Err(LoadError::Abi(format!(
                "{name} returned {word:#x}: exactly one of 1 (record), 2 (batch) and 4 (event) must be \
                 set, 8 (uses keyed state) may be"
            )));
        }
    };
    Ok(Carrier::Packed {
        mode,
        uses_state: word & USES_STATE != 0,
    })
}

fn refuse_by_kind(wasm: &[u8]) -> Result<(), LoadError> {
    if Engine::detect_precompiled(wasm).is_some() {
        return Err(LoadError::Refused(
            "a precompiled artifact is native code and is not accepted: upload the WebAssembly module".into(),
        ));
    }
    Ok(())
}

fn exports(module: &wasmtime::Module) -> Result<Exports, LoadError> {
    use ValType::{I32, I64};
    const PACKED: [&str; 3] = ["shardmill_abi_v1", "shardmill_prepare", "shardmill_handle"];
    const INITIALIZE: &str = "_initialize";
    let packed = PACKED.iter().any(|name| module.get_export(name).is_some());
    match (packed, module.get_export("_start").is_some()) {
        (true, true) => Err(LoadError::Abi(
            "module exports both shardmill_* and _start: it can be a handler of the packed ABI or a WASI command, \
             not both"
                .into(),
        )),
        (false, false) => Err(LoadError::Abi(
            "module exports neither shardmill_abi_v1, shardmill_prepare and shardmill_handle (packed ABI) nor \
             _start (WASI command)"
                .into(),
        )),
        (true, false) => Ok(Exports::Packed {
            initialize: match module.get_export(INITIALIZE) {
                Some(_) => Some(function(module, INITIALIZE, &[], &[])?),
                None => None,
            },
            abi: function(module, PACKED[0], &[], &[I32])?,
            prepare: function(module, PACKED[1], &[I32], &[I32])?,
            handle: function(module, PACKED[2], &[I32, I32], &[I64])?,
            memory: memory(module)?,
        }),
        (false, true) => {
            memory(module)?;
            Ok(Exports::Command { start: function(module, "_start", &[], &[])? })
        }
    }
}

fn function(
    module: &wasmtime::Module,
    name: &str,
    params: &[ValType],
    results: &[ValType],
) -> Result<ModuleExport, LoadError> {
    let same = |have: &[ValType], want: &[ValType]| {
        have.len() == want.len()
            && have
                .iter()
                .zip(want)
                .all(|(have, want)| ValType::eq(have, want))
    };
    let fits = match module.get_export(name) {
        Some(ExternType::Func(ty)) => {
            same(&ty.params().collect::<Vec<_>>(), params)
                && same(&ty.results().collect::<Vec<_>>(), results)
        }
        _ => false,
    };
    let list = |types: &[ValType]| {
        types
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    fits.then(|| module.get_export_index(name))
        .flatten()
        .ok_or_else(|| {
            LoadError::Abi(format!(
                "module must export {name}: ({}) -> ({})",
                list(params),
                list(results)
            ))
        })
}

fn memory(module: &wasmtime::Module) -> Result<ModuleExport, LoadError> {
    let fits = match module.get_export("memory") {
        Some(ExternType::Memory(ty)) => !ty.is_64() && !ty.is_shared() && ty.page_size_log2() == 16,
        _ => false,
    };
    fits.then(|| module.get_export_index("memory"))
        .flatten()
        .ok_or_else(|| {
            LoadError::Abi(
                "module must export its memory, 32-bit and not shared, as \"memory\"".into(),
            )
        })
}
