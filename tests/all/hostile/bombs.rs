//! Modules that no text could hold: bombs for the compiler, sections without end, what is no
//! module at all. Each is cheap to make.

use super::modules::Module;

/// A section of a module.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

/// A section with a name, for tools.
fn custom(name: &str, content: &[u8]) -> Vec<u8> {
    section(0, &[&leb(name.len()), name.as_bytes(), content].concat())
}

/// `n` in LEB128.
fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// What a module begins with.
const MAGIC: &[u8] = b"\0asm\x01\0\0\0";

/// A handler that is only its exports, and fails at its first record by a trap in `$attack`,
/// which calls itself so many times before.
fn trap(depth: u32) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 32)
        (data (i32.const 8) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
        (func (export "shardmill_abi_v1") (result i32) (i32.const 2))
        (func (export "shardmill_prepare") (param i32) (result i32) (i32.const 0x10000))
        (func (export "shardmill_handle") (param $ptr i32) (param $len i32) (result i64)
            (if (i32.load offset=12 (local.get $ptr)) (then (call 3 (i32.const {depth}))))
            (i64.const 0x0000000800000010))
        (func (param i32)
            (if (i32.eqz (local.get 0)) (then unreachable))
            (call 3 (i32.sub (local.get 0) (i32.const 1)))))"#
    );
    wat::parse_str(text).unwrap()
}

/// Function 3 of such a module has this name.
fn named(name: &[u8], depth: u32) -> Vec<u8> {
    let entry = [&[1, 3][..], &leb(name.len()), name].concat();
    let names = section(1, &entry);
    [trap(depth), custom("name", &names)].concat()
}

/// Debug sections by DWARF 4: a table of so many lines, and so many units of which each has it.
fn lines(rows: usize, units: usize) -> Vec<u8> {
    const COMPILE_UNIT: u8 = 0x11;
    const NO_CHILDREN: u8 = 0;
    // stmt_list: sec_offset, low_pc: addr, high_pc: data4.
    let abbreviations = [
        1,
        COMPILE_UNIT,
        NO_CHILDREN,
        0x10,
        0x17,
        0x11,
        0x01,
        0x12,
        0x06,
        0,
        0,
        0,
    ];
    let sized = |content: &[u8]| [&(content.len() as u32).to_le_bytes(), content].concat();
    // Version 4, the abbreviations, addresses of 4 bytes; then the unit: all addresses.
    let mut unit = [&4u16.to_le_bytes()[..], &[0; 4], &[4, 1], &[0; 4], &[0; 4]].concat();
    unit.extend(0x7fff_ffffu32.to_le_bytes());
    let units = sized(&unit).repeat(units);
    let mut header = vec![1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0];
    header.extend(b"a\0\0\0\0\0");
    // An address where no code is; then each byte is a row; then the end.
    let mut program = vec![0, 5, 2, 0, 0, 0, 0x70];
    program.extend(vec![0x20; rows]);
    program.extend([0, 1, 1]);
    let table = [&4u16.to_le_bytes()[..], &sized(&header), &program].concat();
    [
        custom(".debug_abbrev", &abbreviations),
        custom(".debug_info", &units),
        custom(".debug_line", &sized(&table)),
    ]
    .concat()
}

fn functions(count: usize, body: &[u8]) -> Vec<u8> {
    let repeated = |item: &[u8]| [leb(count), item.repeat(count)].concat();
    let code = [&leb(body.len()), body].concat();
    [
        MAGIC,
        &section(1, b"\x01\x60\x00\x01\x7f"),
        &section(3, &repeated(b"\0")),
        &section(10, &repeated(&code)),
    ]
    .concat()
}

/// One function of this body, `() -> i32`, without locals.
fn function(body: &[u8]) -> Vec<u8> {
    functions(1, &[&[0], body, &[0x0b]].concat())
}

/// LEB128 of a number of 32 bits, in five bytes.
const MANY: &[u8] = b"\xff\xff\xff\xff\x0f";

/// All of them.
pub(super) fn all() -> Vec<Module> {
    vec![
        Module::refused(
            "bomb-br-table",
            "one `br_table` with eight million targets",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| {
                let targets = 8_000_000;
                let body = [
                    &[0x02, 0x40, 0x41, 0, 0x0e][..],
                    &leb(targets),
                    &vec![0; targets + 1],
                    &[0x0b, 0x41, 0],
                ];
                function(&body.concat())
            },
        ),
        Module::refused(
            "bomb-locals",
            "a function with four billion locals",
            "400 not_deployed: not a usable WebAssembly module: *too many locals*",
            |_| functions(1, &[&[1], MANY, &[0x7f, 0x41, 0, 0x0b]].concat()),
        ),
        Module::refused(
            "bomb-nesting",
            "thirty thousand nested blocks in one function",
            "400 not_deployed: module exports neither *",
            |_| {
                let depth = 30_000;
                let mut body = [0x02, 0x40].repeat(depth);
                body.extend(vec![0x0b; depth]);
                body.extend([0x41, 0]);
                function(&body)
            },
        ),
        Module::refused(
            "bomb-function",
            "one function of eight million bytes",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| {
                let mut body = [0x41, 1, 0x1a].repeat(2_700_000);
                body.extend([0x41, 0]);
                function(&body)
            },
        ),
        Module::refused(
            "bomb-functions",
            "more than a million functions",
            "400 not_deployed: not a usable WebAssembly module: *functions count exceeds limit*",
            |_| functions(1_000_001, &[0, 0x41, 0, 0x0b]),
        ),
        Module::refused(
            "bomb-types",
            "a function type with 100,000 parameters",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| {
                let many = 100_000;
                let ty = [&[1, 0x60][..], &leb(many), &vec![0x7f; many], &[0]];
                [MAGIC, &section(1, &ty.concat())].concat()
            },
        ),
        Module::refused(
            "bomb-count",
            "a section that says it has four billion entries, and has none",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| [MAGIC, &section(3, MANY)].concat(),
        ),
        Module::refused(
            "bomb-element",
            "an element segment that says it has four billion functions",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| {
                let table = section(4, &[1, 0x70, 0, 1]);
                let element = section(9, &[&[1, 0, 0x41, 0, 0x0b], MANY].concat());
                [MAGIC, &table, &element].concat()
            },
        ),
        Module::refused(
            "file-empty-module",
            "a module of eight bytes",
            "400 not_deployed: module exports neither *",
            |_| MAGIC.to_vec(),
        ),
        Module::refused(
            "file-noise",
            "bytes that are no module",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| b"\x7fELF".repeat(1_000),
        ),
        Module::refused(
            "file-text",
            "a module's text instead of its bytes",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| b"(module)".to_vec(),
        ),
        Module::refused(
            "file-cut-short",
            "a module whose last bytes are missing",
            "400 not_deployed: not a usable WebAssembly module: *unexpected end*",
            |_| {
                let mut wasm = trap(0);
                wasm.truncate(wasm.len() - 3);
                wasm
            },
        ),
        Module::refused(
            "file-trailing-section",
            "a section that ends behind the file",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| [trap(0), vec![0], MANY.to_vec()].concat(),
        ),
        Module::refused(
            "file-two-code-sections",
            "the code section twice",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| {
                let code = section(10, b"\x00");
                [MAGIC, &code, &code].concat()
            },
        ),
        Module::refused(
            "file-precompiled",
            "native code as the engine keeps it",
            "400 not_deployed: a precompiled artifact is native code and is not accepted: *",
            |_| precompiled(),
        ),
        Module::refused(
            "file-gzip",
            "a module that is compressed",
            "400 not_deployed: not a usable WebAssembly module: *",
            |_| b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(),
        ),
        Module::gives_up(
            "report-long-name",
            "a trap sixty frames deep in a function whose name has 99,000 bytes",
            "trap: unreachable",
            |_| named(&vec![b'n'; 99_000], 60),
        ),
        Module::gives_up(
            "report-name-that-grows",
            "a name that grows without end when it is demangled",
            "trap: unreachable",
            |_| {
                // A tuple of which each element names all before it, by RFC 2603.
                let mut name = "_RINvC1a1b".to_owned();
                for back in 0..40 {
                    name += &format!("TB{}_B{}_E", back, back);
                }
                named(format!("{name}E").as_bytes(), 60)
            },
        ),
        Module::gives_up(
            "report-name-escapes",
            "a function's name with line ends and commands for a terminal",
            "trap: unreachable",
            |_| named(b"\x1b[2Jwiped\nFORGED line", 2),
        ),
        Module::gives_up(
            "report-line-bomb",
            "a trap in a module whose debug sections stand for 25 GiB of line numbers",
            "trap: unreachable",
            |_| [trap(0), lines(1 << 20, 1_000)].concat(),
        ),
        Module::gives_up(
            "report-large-sections",
            "a trap in a module with 16 MiB of sections for tools",
            "trap: unreachable",
            |_| [trap(0), custom("padding", &vec![0; 16 << 20])].concat(),
        ),
    ]
}

/// What the engine takes for an artifact of its own: an ELF file of its kind.
fn precompiled() -> Vec<u8> {
    // Of the header only what tells what it is: 64 bits, little-endian, the engine's own ABI,
    // a module.
    let mut elf = vec![0u8; 64];
    elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\xc8");
    elf[16] = 0;
    elf[20] = 1;
    elf[48] = 1;
    elf[52] = 64;
    elf
}
