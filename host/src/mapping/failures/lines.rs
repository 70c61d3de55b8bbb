//! From a guest's stack to its source: file and line by the DWARF sections of the stored module,
//! where it has some. Done when somebody looks, never when a trap happens; what was found is kept
//! for a few modules.
//!
//! Debug sections are somebody's bytes like all of the module, and a few of them can stand for
//! gigabytes of lines: a host has them read by a child process with limits (`child`).
//!
//! DWARF in WebAssembly counts addresses from the beginning of the code section's contents
//! ("DWARF for WebAssembly", section "Code addresses"). An instruction that the engine has taken
//! over from an inlined function has no offset: of such a frame only the function is known, and
//! the line given is the function's first.

mod child;

pub use child::{FIND_LINES, find_lines};

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use addr2line::Context;
use addr2line::gimli::{self, Dwarf, EndianSlice, LittleEndian, SectionId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shardmill_core::limits::MAX_FRAME_NAME_BYTES;
use shardmill_core::outcome::Frame;
use shardmill_store::ReadError;
use tokio::sync::Mutex as Turn;

/// Modules whose lines are remembered.
const MODULES: usize = 16;
/// Frames that are remembered of each.
const FRAMES: usize = 2_000;

/// Functions that were inlined into one another, of one frame.
const INLINED: usize = 100;

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The function, demangled, if it is known.
    pub function: Option<String>,
    /// The file, relative to the folder that the compiler ran in where it lies below it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, if it is known.
    pub column: Option<u32>,
    /// Whether this is where the function begins, since the place in it is not known.
    pub whole_function: bool,
}

/// What identifies a frame in a module: the instruction's offset, or else the function's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Ask {
    Offset(u64),
    Function(u32),
    Nothing,
}

type Known = HashMap<Ask, Vec<Line>>;

/// Looks lines up, and remembers what was found.
#[derive(Default)]
pub(super) struct LineCache {
    found: Mutex<VecDeque<(String, Known)>>,
    /// The program whose `main` hands [`FIND_LINES`] to [`find_lines`]; without one modules are
    /// read in this process.
    program: Option<PathBuf>,
    /// One module is read at a time.
    turn: Turn<()>,
}

impl LineCache {
    /// Has modules read by a child process.
    pub(super) fn contained(program: PathBuf) -> Self {
        Self {
            program: Some(program),
            ..Self::default()
        }
    }

    /// The lines of each frame. `wasm` reads the module, if something is not known yet.
    pub(super) async fn resolve<F>(
        &self,
        digest: &str,
        frames: &[Frame],
        wasm: impl FnOnce() -> F,
    ) -> Result<Vec<Vec<Line>>, ReadError>
    where
        F: Future<Output = Result<Option<Bytes>, ReadError>>,
    {
        let asks: Vec<Ask> = frames.iter().map(ask).collect();
        if let Some(known) = self.known(digest, &asks) {
            return Ok(known);
        }
        let Some(wasm) = wasm().await? else {
            return Ok(vec![Vec::new(); asks.len()]);
        };
        let _turn = self.turn.lock().await;
        let found = match &self.program {
            Some(program) => child::ask(program, &wasm, &asks).await,
            None => {
                let asked = asks.clone();
                let found = tokio::task::spawn_blocking(move || resolve(&wasm, &asked)).await;
                found.ok()
            }
        };
        // A parser that fails on somebody's debug sections costs their line numbers.
        let found = found.unwrap_or_else(|| vec![Vec::new(); asks.len()]);
        self.remember(digest, &asks, &found);
        Ok(found)
    }

    fn known(&self, digest: &str, asks: &[Ask]) -> Option<Vec<Vec<Line>>> {
        let cache = self.cache();
        let (_, known) = cache.iter().find(|(of, _)| of == digest)?;
        asks.iter().map(|ask| known.get(ask).cloned()).collect()
    }

    fn remember(&self, digest: &str, asks: &[Ask], found: &[Vec<Line>]) {
        let mut cache = self.cache();
        let at = cache.iter().position(|(of, _)| of == digest);
        let (_, mut known) = at.and_then(|at| cache.remove(at)).unwrap_or_default();
        if known.len() > FRAMES {
            known.clear();
        }
        known.extend(asks.iter().copied().zip(found.iter().cloned()));
        cache.push_front((digest.to_owned(), known));
        cache.truncate(MODULES);
    }

    fn cache(&self) -> MutexGuard<'_, VecDeque<(String, Known)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask(frame: &Frame) -> Ask {
    let index = frame.index.map(Ask::Function);
    let offset = frame.module_offset.map(Ask::Offset);
    offset.or(index).unwrap_or(Ask::Nothing)
}

/// Looks frames up in a module. What cannot be found has no line.
fn resolve(wasm: &[u8], asks: &[Ask]) -> Vec<Vec<Line>> {
    let nothing = vec![Vec::new(); asks.len()];
    let Some(module) = Sections::read(wasm) else {
        return nothing;
    };
    if !module.debug.contains_key(SectionId::DebugLine.name()) {
        return nothing;
    }
    let load = |id: SectionId| {
        let bytes = module.debug.get(id.name()).copied().unwrap_or_default();
        Ok::<_, gimli::Error>(EndianSlice::new(bytes, LittleEndian))
    };
    let context = Dwarf::load(load).and_then(|dwarf| Context::from_arc_dwarf(Arc::new(dwarf)));
    let Ok(context) = context else {
        return nothing;
    };
    asks.iter()
        .map(|ask| match ask {
            Ask::Offset(offset) => offset
                .checked_sub(module.code_start)
                .map(|address| lines_at(&context, address))
                .unwrap_or_default(),
            Ask::Function(index) => {
                let start = module.function_start(*index);
                let mut lines = start.map_or_else(Vec::new, |at| lines_at(&context, at));
                // Of what was inlined into the first instruction nothing is known.
                lines.drain(..lines.len().saturating_sub(1));
                lines.iter_mut().for_each(|line| line.whole_function = true);
                lines
            }
            Ask::Nothing => Vec::new(),
        })
        .collect()
}

fn lines_at(context: &Context<EndianSlice<'_, LittleEndian>>, address: u64) -> Vec<Line> {
    let folder = context
        .find_dwarf_and_unit(address)
        .skip_all_loads()
        .and_then(|unit| Some(unit.comp_dir?.to_string_lossy().into_owned()));
    let mut lines = Vec::new();
    let Ok(mut frames) = context.find_frames(address).skip_all_loads() else {
        return lines;
    };
    while lines.len() < INLINED
        && let Ok(Some(frame)) = frames.next()
    {
        let Some(place) = frame.location else {
            continue;
        };
        let (Some(file), Some(line)) = (place.file, place.line) else {
            continue;
        };
        let function = frame.function.as_ref().and_then(|f| f.demangle().ok());
        lines.push(Line {
            function: function.map(|name| cut(short(&name)).to_owned()),
            file: cut(&relative(file, folder.as_deref())).to_owned(),
            line,
            column: place.column.filter(|column| *column > 0),
            whole_function: false,
        });
    }
    lines
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_FRAME_NAME_BYTES)]
}

/// The file as a reader knows it: below the compiler's folder, or below the standard library's.
fn relative(file: &str, folder: Option<&str>) -> String {
    if let Some((_, file)) = file.split_once("/lib/rustlib/src/rust/") {
        return file.to_owned();
    }
    if let Some(file) = file.strip_prefix("/rustc/") {
        return file.split_once('/').map_or(file, |(_, file)| file).into();
    }
    let below = folder.and_then(|folder| Path::new(file).strip_prefix(folder).ok());
    below.map_or_else(|| file.to_owned(), |path| path.display().to_string())
}

/// A demangled name without its type parameters and the `::h…` that tells instances apart.
fn short(name: &str) -> &str {
    let name = match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            name
        }
        _ => name,
    };
    match name.find('<') {
        Some(at) if at > 0 => name[..at].trim_end_matches("::"),
        _ => name,
    }
}

/// The sections of a module that matter here.
struct Sections<'a> {
    debug: HashMap<&'a str, &'a [u8]>,
    /// Offset of the code section's contents in the module.
    code_start: u64,
    code: &'a [u8],
    imported_functions: Option<u32>,
}

impl<'a> Sections<'a> {
    fn read(wasm: &'a [u8]) -> Option<Self> {
        const CUSTOM: u8 = 0;
        const IMPORT: u8 = 2;
        const CODE: u8 = 10;
        let mut rest = wasm.strip_prefix(b"\0asm\x01\0\0\0")?;
        let mut sections = Self {
            debug: HashMap::new(),
            code_start: 0,
            code: &[],
            imported_functions: Some(0),
        };
        while let Some((id, after)) = rest.split_first() {
            rest = after;
            let len = number(&mut rest)? as usize;
            let start = wasm.len() - rest.len();
            let (mut contents, after) = rest.split_at_checked(len)?;
            rest = after;
            match *id {
                CUSTOM => {
                    let name = std::str::from_utf8(text(&mut contents)?).unwrap_or_default();
                    if name.starts_with(".debug_") {
                        sections.debug.insert(name, contents);
                    }
                }
                IMPORT => sections.imported_functions = imported_functions(contents),
                CODE => {
                    sections.code_start = start as u64;
                    sections.code = contents;
                }
                _ => {}
            }
        }
        Some(sections)
    }

    /// Where a function's body begins, counted as DWARF does.
    fn function_start(&self, index: u32) -> Option<u64> {
        let defined = index.checked_sub(self.imported_functions?)?;
        let mut rest = self.code;
        let count = number(&mut rest)?;
        if defined >= count {
            return None;
        }
        for _ in 0..defined {
            let len = number(&mut rest)? as usize;
            rest = rest.get(len..)?;
        }
        number(&mut rest)?;
        Some((self.code.len() - rest.len()) as u64)
    }
}

/// How many functions are imported, if nothing else is.
fn imported_functions(mut rest: &[u8]) -> Option<u32> {
    let count = number(&mut rest)?;
    for _ in 0..count {
        text(&mut rest)?;
        text(&mut rest)?;
        let (kind, after) = rest.split_first()?;
        rest = after;
        if *kind != 0 {
            return None;
        }
        number(&mut rest)?;
    }
    Some(count)
}

/// A length-prefixed text.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = number(rest)? as usize;
    let (text, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(text)
}

/// An unsigned LEB128 of at most 32 bits.
fn number(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_functions_body_is_found_by_its_index() {
        let wasm = wat::parse_str(
            r#"(module (import "a" "b" (func)) (func nop) (func (export "f") nop nop unreachable))"#,
        )
        .expect("good WAT");
        let sections = Sections::read(&wasm).expect("a module");
        assert_eq!(sections.function_start(0), None, "imported");
        for (index, nops) in [(1, 1), (2, 2)] {
            let start = sections.function_start(index).expect("a function") as usize;
            let body = &sections.code[start..];
            // No locals, then the instructions.
            assert_eq!(body[..=nops], [&[0][..], &[1].repeat(nops)].concat()[..]);
        }
        assert_eq!(sections.function_start(3), None);
        let at = sections.code_start as usize;
        assert_eq!(wasm[at..at + sections.code.len()], *sections.code);
    }

    #[test]
    fn a_module_that_is_cut_or_damaged_has_no_lines_and_does_no_harm() {
        let wasm = wat::parse_str(
            r#"(module (func nop) (@custom ".debug_line" "\01\02\03") (@custom ".debug_info" "\ff\ff"))"#,
        )
        .expect("good WAT");
        for end in 0..=wasm.len() {
            let found = resolve(&wasm[..end], &[Ask::Offset(30), Ask::Function(0)]);
            assert_eq!(found, [vec![], vec![]]);
        }
    }

    #[test]
    fn names_and_files_are_told_as_a_reader_knows_them() {
        for (name, want) in [
            ("a::b::h0123456789abcdef", "a::b"),
            ("a::hello", "a::hello"),
            ("call<fn(&A) -> Result<(), B>>", "call"),
            ("<A as B>::c", "<A as B>::c"),
        ] {
            assert_eq!(short(name), want);
        }
        for (file, want) in [
            ("/work/src/lib.rs", "src/lib.rs"),
            ("/other/src/lib.rs", "/other/src/lib.rs"),
            (
                "/x/lib/rustlib/src/rust/library/core/src/a.rs",
                "library/core/src/a.rs",
            ),
            ("/rustc/0123/library/core/src/a.rs", "library/core/src/a.rs"),
        ] {
            assert_eq!(relative(file, Some("/work")), want);
        }
    }
}
