//! WASI preview 1 for a guest that has nothing: standard streams, its own environment variables,
//! a clock that stands still, a clock that steps, and seeded randomness. There are no files, no
//! sockets and no arguments, and the code to reach any is not here: this is all of it, rather
//! than a general implementation with doors closed.
//!
//! Same inputs, same answers: the wall clock is the invocation's start, the monotonic clock
//! starts at 0, advances 1 µs with each reading and with each sleep by its length.
//!
//! Errors and structures are those of the `wasi_snapshot_preview1` witx document. Each call costs
//! 100 fuel and one more per byte that crosses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;
use shardmill_core::UnixMillis;
use wasmtime::{Caller, FuncType, Linker, Result, Val, ValType};

use crate::component::Pollables;
use crate::guest::{Guest, charge, memory, range, range_mut, tell_burnt};
use crate::meter;
use crate::output::Stream;
use crate::trap::Stop;

/// The imports' module.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

const CALL_FUEL: u64 = 100;
/// What the clocks tell apart, and how far a reading advances the monotonic one.
pub(crate) const CLOCK_STEP: Duration = Duration::from_micros(1);
/// Buffers of one read or write, subscriptions of one poll; as wasi-libc's IOV_MAX.
const MAX_VECTOR: u32 = 1024;

const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const FAULT: i32 = 21;
const INVAL: i32 = 28;
const SPIPE: i32 = 70;
const NOTCAPABLE: i32 = 76;

const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

/// One guest's side of WASI.
pub(crate) struct Wasi {
    environment: Arc<BTreeMap<String, String>>,
    stdin: Bytes,
    closed: [bool; 3],
    wall: Duration,
    monotonic: Duration,
    random: ChaCha12Rng,
    /// Whether a sleep only moves the guest's clock.
    skips_sleeps: bool,
    /// A component's; preview 1 has none.
    pub(crate) pollables: Pollables,
}

impl Wasi {
    pub(crate) fn new(
        environment: Arc<BTreeMap<String, String>>,
        now: UnixMillis,
        seed: [u8; 32],
    ) -> Self {
        Self {
            environment,
            stdin: Bytes::new(),
            closed: [false; 3],
            wall: Duration::from_millis(now.0),
            monotonic: Duration::ZERO,
            random: ChaCha12Rng::from_seed(seed),
            skips_sleeps: false,
            pollables: Pollables::default(),
        }
    }

    /// From now on a sleep passes on the guest's clock and takes no time.
    pub(crate) fn skip_sleeps(&mut self) {
        self.skips_sleeps = true;
    }

    /// What the guest can read from its standard input.
    pub(crate) fn set_stdin(&mut self, bytes: Bytes) {
        self.stdin = bytes;
    }

    fn is_open(&self, fd: i32) -> bool {
        usize::try_from(fd)
            .ok()
            .and_then(|fd| self.closed.get(fd))
            .is_some_and(|closed| !closed)
    }

    /// The guest's environment variables.
    pub(crate) fn environment(&self) -> &Arc<BTreeMap<String, String>> {
        &self.environment
    }

    /// The next bytes of standard input, at most `len`; none at its end.
    pub(crate) fn read_stdin(&mut self, len: usize) -> Bytes {
        self.stdin.split_to(len.min(self.stdin.len()))
    }

    /// The wall clock, since the Unix epoch.
    pub(crate) fn wall(&self) -> Duration {
        self.wall
    }

    /// The monotonic clock, without a reading's advance.
    pub(crate) fn monotonic(&self) -> Duration {
        self.monotonic
    }

    /// Reads the monotonic clock, which advances it.
    pub(crate) fn read_monotonic(&mut self) -> Duration {
        let now = self.monotonic;
        self.monotonic = now.saturating_add(CLOCK_STEP);
        now
    }

    /// Lets a sleep pass on the guest's clock; whether it takes time.
    pub(crate) fn pass(&mut self, span: Duration) -> bool {
        self.monotonic = self.monotonic.saturating_add(span);
        !self.skips_sleeps
    }

    /// The next random bytes.
    pub(crate) fn fill_random(&mut self, out: &mut [u8]) {
        self.random.fill_bytes(out);
    }

    /// The next random number.
    pub(crate) fn random_u64(&mut self) -> u64 {
        self.random.next_u64()
    }
}

/// Functions whose answer is always the same. Parameters: `i` i32, `I` i64.
#[rustfmt::skip]
const REFUSED: &[(&str, &str, i32)] = &[
    ("fd_advise", "iIIi", BADF), ("fd_allocate", "iII", BADF), ("fd_datasync", "i", BADF),
    ("fd_fdstat_set_rights", "iII", BADF), ("fd_filestat_set_size", "iI", BADF),
    ("fd_filestat_set_times", "iIIi", BADF), ("fd_pread", "iiiIi", BADF), ("fd_prestat_get", "ii", BADF),
    ("fd_prestat_dir_name", "iii", BADF), ("fd_pwrite", "iiiIi", BADF), ("fd_readdir", "iiiIi", BADF),
    ("fd_renumber", "ii", BADF), ("fd_sync", "i", BADF),
    ("path_create_directory", "iii", NOTCAPABLE), ("path_filestat_get", "iiiii", NOTCAPABLE),
    ("path_filestat_set_times", "iiiiIIi", NOTCAPABLE), ("path_link", "iiiiiii", NOTCAPABLE),
    ("path_open", "iiiiiIIii", NOTCAPABLE), ("path_readlink", "iiiiii", NOTCAPABLE),
    ("path_remove_directory", "iii", NOTCAPABLE), ("path_rename", "iiiiii", NOTCAPABLE),
    ("path_symlink", "iiiii", NOTCAPABLE), ("path_unlink_file", "iii", NOTCAPABLE),
    ("proc_raise", "i", NOTCAPABLE), ("sock_accept", "iii", NOTCAPABLE), ("sock_recv", "iiiiii", NOTCAPABLE),
    ("sock_send", "iiiii", NOTCAPABLE), ("sock_shutdown", "ii", NOTCAPABLE),
    ("sched_yield", "", SUCCESS),
];

/// Offers preview 1 to guests.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> Result<()> {
    for (name, params, answer) in REFUSED {
        let params = params
            .chars()
            .map(|c| if c == 'I' { ValType::I64 } else { ValType::I32 });
        let signature = FuncType::new(linker.engine(), params, [ValType::I32]);
        linker.func_new(MODULE, name, signature, |mut caller, _, results| {
            charge(&mut caller, CALL_FUEL)?;
            results[0] = Val::I32(*answer);
            Ok(())
        })?;
    }
    linker.func_wrap(
        MODULE,
        "args_sizes_get",
        |mut caller: Caller<'_, Guest>, count: i32, bytes: i32| {
            put(
                &mut caller,
                &[(count, &0u32.to_le_bytes()), (bytes, &0u32.to_le_bytes())],
            )
        },
    )?;
    linker.func_wrap(
        MODULE,
        "args_get",
        |mut caller: Caller<'_, Guest>, _: i32, _: i32| put(&mut caller, &[]),
    )?;
    linker.func_wrap(MODULE, "environ_sizes_get", environ_sizes_get)?;
    linker.func_wrap(MODULE, "environ_get", environ_get)?;
    linker.func_wrap(
        MODULE,
        "clock_res_get",
        |mut caller: Caller<'_, Guest>, clock: i32, out: i32| {
            if !(0..=3).contains(&clock) {
                return Ok(INVAL);
            }
            put(&mut caller, &[(out, &nanos(CLOCK_STEP).to_le_bytes())])
        },
    )?;
    linker.func_wrap(MODULE, "clock_time_get", clock_time_get)?;
    linker.func_wrap(MODULE, "random_get", random_get)?;
    linker.func_wrap(
        MODULE,
        "proc_exit",
        |_: Caller<'_, Guest>, code: i32| -> Result<()> { Err(Stop::Exit(code).into()) },
    )?;
    linker.func_wrap(
        MODULE,
        "fd_close",
        |mut caller: Caller<'_, Guest>, fd: i32| {
            charge(&mut caller, CALL_FUEL)?;
            let wasi = &mut caller.data_mut().wasi;
            let open = wasi.is_open(fd);
            if open {
                wasi.closed[fd as usize] = true;
            }
            Ok(if open { SUCCESS } else { BADF })
        },
    )?;
    linker.func_wrap(MODULE, "fd_fdstat_get", fd_fdstat_get)?;
    linker.func_wrap(
        MODULE,
        "fd_fdstat_set_flags",
        |mut caller: Caller<'_, Guest>, fd: i32, _: i32| on_open(&mut caller, fd, SUCCESS),
    )?;
    linker.func_wrap(
        MODULE,
        "fd_filestat_get",
        |mut caller: Caller<'_, Guest>, fd: i32, out: i32| match on_open(&mut caller, fd, SUCCESS)?
        {
            SUCCESS => put(&mut caller, &[(out, &[0; 64])]),
            error => Ok(error),
        },
    )?;
    linker.func_wrap(
        MODULE,
        "fd_seek",
        |mut caller: Caller<'_, Guest>, fd: i32, _: i64, _: i32, _: i32| {
            on_open(&mut caller, fd, SPIPE)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "fd_tell",
        |mut caller: Caller<'_, Guest>, fd: i32, _: i32| on_open(&mut caller, fd, SPIPE),
    )?;
    linker.func_wrap(MODULE, "fd_read", fd_read)?;
    linker.func_wrap(MODULE, "fd_write", fd_write)?;
    linker.func_wrap_async(
        MODULE,
        "poll_oneoff",
        |caller: Caller<'_, Guest>, params: (i32, i32, i32, i32)| {
            Box::new(poll_oneoff(caller, params))
        },
    )?;
    Ok(())
}

fn environ_sizes_get(mut caller: Caller<'_, Guest>, count: i32, bytes: i32) -> Result<i32> {
    let environment = Arc::clone(&caller.data().wasi.environment);
    let size: usize = environment
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum();
    put(
        &mut caller,
        &[
            (count, &(environment.len() as u32).to_le_bytes()),
            (bytes, &(size as u32).to_le_bytes()),
        ],
    )
}

fn environ_get(mut caller: Caller<'_, Guest>, pointers: i32, buffer: i32) -> Result<i32> {
    let environment = Arc::clone(&caller.data().wasi.environment);
    let (mut starts, mut text) = (Vec::new(), Vec::new());
    for (name, value) in environment.iter() {
        let start = buffer.wrapping_add(text.len() as i32);
        starts.extend_from_slice(&start.to_le_bytes());
        text.extend_from_slice(format!("{name}={value}\0").as_bytes());
    }
    put(&mut caller, &[(pointers, &starts), (buffer, &text)])
}

fn clock_time_get(
    mut caller: Caller<'_, Guest>,
    clock: i32,
    _precision: i64,
    out: i32,
) -> Result<i32> {
    let wasi = &mut caller.data_mut().wasi;
    let now = match clock {
        0 => wasi.wall,
        1..=3 => wasi.read_monotonic(),
        _ => return Ok(INVAL),
    };
    put(&mut caller, &[(out, &nanos(now).to_le_bytes())])
}

fn random_get(mut caller: Caller<'_, Guest>, out: i32, len: i32) -> Result<i32> {
    charge(&mut caller, CALL_FUEL + u64::from(len.cast_unsigned()))?;
    let (memory, guest) = memory(&mut caller)?.data_and_store_mut(&mut caller);
    let Some(out) = range_mut(memory, out, len) else {
        return Ok(FAULT);
    };
    guest.wasi.fill_random(out);
    Ok(SUCCESS)
}

fn fd_fdstat_get(mut caller: Caller<'_, Guest>, fd: i32, out: i32) -> Result<i32> {
    const READ: u64 = 1 << 1;
    const WRITE: u64 = 1 << 6;
    match on_open(&mut caller, fd, SUCCESS)? {
        SUCCESS => {
            let rights = if fd == STDIN { READ } else { WRITE }.to_le_bytes();
            // A file of unknown type, which says that it is no terminal; no flags.
            put(
                &mut caller,
                &[
                    (out, &[0; 8]),
                    (out.wrapping_add(8), &rights),
                    (out.wrapping_add(16), &rights),
                ],
            )
        }
        error => Ok(error),
    }
}

fn fd_read(
    mut caller: Caller<'_, Guest>,
    fd: i32,
    vectors: i32,
    count: i32,
    out: i32,
) -> Result<i32> {
    let buffers = match buffers(&mut caller, vectors, count)? {
        Ok(buffers) => buffers,
        Err(error) => return Ok(error),
    };
    if fd != STDIN || !caller.data().wasi.is_open(fd) {
        return Ok(BADF);
    }
    let mut read = 0;
    for (ptr, len) in buffers {
        let rest = caller.data().wasi.stdin.len();
        let take = rest.min(len.cast_unsigned() as usize);
        charge(&mut caller, take as u64)?;
        let (memory, guest) = memory(&mut caller)?.data_and_store_mut(&mut caller);
        let Some(into) = range_mut(memory, ptr, take as i32) else {
            return Ok(FAULT);
        };
        into.copy_from_slice(&guest.wasi.read_stdin(take));
        read += take as u32;
    }
    put(&mut caller, &[(out, &read.to_le_bytes())])
}

fn fd_write(
    mut caller: Caller<'_, Guest>,
    fd: i32,
    vectors: i32,
    count: i32,
    out: i32,
) -> Result<i32> {
    let stream = match fd {
        STDOUT => Stream::Stdout,
        STDERR => Stream::Stderr,
        _ => return on_open(&mut caller, -1, BADF),
    };
    let buffers = match buffers(&mut caller, vectors, count)? {
        Ok(buffers) => buffers,
        Err(error) => return Ok(error),
    };
    if !caller.data().wasi.is_open(fd) {
        return Ok(BADF);
    }
    let mut written = 0u32;
    for (ptr, len) in buffers {
        charge(&mut caller, u64::from(len.cast_unsigned()))?;
        let (memory, guest) = memory(&mut caller)?.data_and_store_mut(&mut caller);
        let Some(bytes) = range(memory, ptr, len) else {
            return Ok(FAULT);
        };
        guest.output.write(stream, bytes);
        written = written.wrapping_add(len.cast_unsigned());
    }
    put(&mut caller, &[(out, &written.to_le_bytes())])
}

/// Waits for the earliest of some instants; the standard streams are always ready.
async fn poll_oneoff(
    mut caller: Caller<'_, Guest>,
    (subscriptions, events, count, out): (i32, i32, i32, i32),
) -> Result<i32> {
    const SUBSCRIPTION_BYTES: i32 = 48;
    const EVENT_BYTES: i32 = 32;
    if count == 0 || count.cast_unsigned() > MAX_VECTOR {
        return Ok(INVAL);
    }
    charge(
        &mut caller,
        CALL_FUEL + (count * (SUBSCRIPTION_BYTES + EVENT_BYTES)) as u64,
    )?;
    let (memory, guest) = memory(&mut caller)?.data_and_store_mut(&mut caller);
    let Some(bytes) = range(memory, subscriptions, count * SUBSCRIPTION_BYTES) else {
        return Ok(FAULT);
    };
    let now = (guest.wasi.wall, guest.wasi.read_monotonic());
    let Some(subscriptions) = bytes
        .chunks_exact(SUBSCRIPTION_BYTES as usize)
        .map(|bytes| Subscription::read(bytes, now))
        .collect::<Option<Vec<_>>>()
    else {
        return Ok(INVAL);
    };
    let wait = subscriptions
        .iter()
        .map(|s| s.wait)
        .min()
        .unwrap_or_default();
    if !wait.is_zero() {
        let signals = Arc::clone(&guest.signals);
        if guest.wasi.pass(wait) {
            tell_burnt(&mut caller)?;
            meter::sleep(&signals, wait).await;
        }
    }
    let wasi = &caller.data().wasi;
    let ready = subscriptions.iter().filter(|s| s.wait <= wait);
    let answer: Vec<u8> = ready.flat_map(|s| s.event(wasi)).collect();
    let ready = (answer.len() / EVENT_BYTES as usize) as u32;
    put(
        &mut caller,
        &[(events, &answer), (out, &ready.to_le_bytes())],
    )
}

struct Subscription {
    userdata: [u8; 8],
    kind: u8,
    fd: i32,
    wait: Duration,
}

impl Subscription {
    const CLOCK: u8 = 0;
    const FD_READ: u8 = 1;
    const FD_WRITE: u8 = 2;

    /// Reads 48 bytes; `now` is the wall clock's and the monotonic clock's.
    fn read(bytes: &[u8], now: (Duration, Duration)) -> Option<Self> {
        let word = |at: usize| {
            i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let userdata = bytes.first_chunk::<8>().copied()?;
        let kind = bytes[8];
        let mut wait = Duration::ZERO;
        if kind == Self::CLOCK {
            let at =
                Duration::from_nanos(u64::from_le_bytes(bytes[24..].first_chunk::<8>().copied()?));
            let absolute = bytes[40] & 1 != 0;
            wait = match word(16) {
                0 | 1 if !absolute => at,
                0 => at.saturating_sub(now.0),
                1 => at.saturating_sub(now.1),
                _ => return None,
            };
        } else if kind != Self::FD_READ && kind != Self::FD_WRITE {
            return None;
        }
        Some(Self {
            userdata,
            kind,
            fd: word(16),
            wait,
        })
    }

    fn event(&self, wasi: &Wasi) -> [u8; 32] {
        let good = match self.kind {
            Self::CLOCK => true,
            Self::FD_READ => self.fd == STDIN && wasi.is_open(self.fd),
            _ => self.fd != STDIN && wasi.is_open(self.fd),
        };
        let mut event = [0; 32];
        event[..8].copy_from_slice(&self.userdata);
        event[8] = if good { SUCCESS } else { BADF } as u8;
        event[10] = self.kind;
        // Bytes that can be read or written at once: at least one.
        event[16] = u8::from(good && self.kind != Self::CLOCK);
        event
    }
}

/// Reads an array of buffers, pointer and length each.
fn buffers(
    caller: &mut Caller<'_, Guest>,
    vectors: i32,
    count: i32,
) -> Result<Result<Vec<(i32, i32)>, i32>> {
    const VECTOR_BYTES: i32 = 8;
    charge(
        &mut *caller,
        CALL_FUEL + 8 * u64::from(count.cast_unsigned().min(MAX_VECTOR)),
    )?;
    if count.cast_unsigned() > MAX_VECTOR {
        return Ok(Err(INVAL));
    }
    let memory = memory(caller)?;
    let Some(bytes) = range(memory.data(&*caller), vectors, count * VECTOR_BYTES) else {
        return Ok(Err(FAULT));
    };
    let word = |b: &[u8]| i32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    Ok(Ok(bytes
        .chunks_exact(VECTOR_BYTES as usize)
        .map(|b| (word(&b[..4]), word(&b[4..])))
        .collect()))
}

/// `answer` if the descriptor is open.
fn on_open(caller: &mut Caller<'_, Guest>, fd: i32, answer: i32) -> Result<i32> {
    charge(&mut *caller, CALL_FUEL)?;
    Ok(if caller.data().wasi.is_open(fd) {
        answer
    } else {
        BADF
    })
}

/// Writes results into the guest's memory, all or nothing of each.
fn put(caller: &mut Caller<'_, Guest>, results: &[(i32, &[u8])]) -> Result<i32> {
    let bytes: usize = results.iter().map(|(_, bytes)| bytes.len()).sum();
    charge(&mut *caller, CALL_FUEL + bytes as u64)?;
    let memory = memory(caller)?;
    for (ptr, bytes) in results {
        let Some(out) = range_mut(memory.data_mut(&mut *caller), *ptr, bytes.len() as i32) else {
            return Ok(FAULT);
        };
        out.copy_from_slice(bytes);
    }
    Ok(SUCCESS)
}

/// Nanoseconds, as many as fit.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
