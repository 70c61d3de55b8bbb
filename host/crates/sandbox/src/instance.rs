//! One attempt: a fresh instance, the batch written into its memory, the handler called, its
//! answer read, and the outcome with the effects that are kept.
//!
//! **What is kept.** On success all. On a failure in record mode the effects of the records before
//! the current one, unless the guest broke the contract, since then nothing it said can be
//! trusted. Otherwise none.
//!
//! **A WASI command's response** is what it wrote to standard output, which must be JSON: logs
//! belong on standard error. Nothing at all counts as `null`, as from a Lambda function that
//! returns nothing.

mod component;

use std::sync::Arc;
use std::time::Duration;

use shardmill_core::abi::{self, ANSWER_MIN_BYTES, Answer, event_len, read_answer, write_event};
use shardmill_core::limits::{FunctionLimits, MAX_ERROR_MESSAGE_BYTES, MAX_ERROR_TYPE_BYTES};
use shardmill_core::outcome::{Cause, Failure};
use shardmill_core::sandbox::{
    Again, Carrier, Input, Invocation, LoadError, Mode, NoState, Report, Usage,
};
use shardmill_core::{BatchContext, Outcome, UnixMillis};
use wasmtime::{Instance, Memory, ModuleExport, Store, TypedFunc, WasmParams, WasmResults};

use crate::admission::Reservation;
use crate::component::{MAX_HANDLES, MAX_LIFTED_BYTES};
use crate::effects::{EffectBuffer, Keep, Tagging};
use crate::guest::{Guest, Ledger};
use crate::limiter::Limiter;
use crate::meter::{Cut, Meter, SLICE_FUEL, Signals};
use crate::module::{Code, CoreCode, Exports, LoadedModule, carrier_of};
use crate::output::{MAX_RESPONSE_BYTES, Output};
use crate::trap::{self, Circumstances, Stop};
use crate::wasi::Wasi;

/// Fuel for a start function and for saying the mode; an interpreter's needs millions.
const ABI_FUEL: u64 = 100_000_000;

/// Memory for the same, bytes.
pub(crate) const ABI_MEMORY_BYTES: u64 = 256 << 20;

/// What a guest returned, before it is judged.
enum Returned {
    Answer(Answer),
    /// A command that ended well; its response is in the output.
    Response,
}

/// Runs one attempt to its end, whatever that is.
pub(crate) async fn attempt(
    module: &LoadedModule,
    (invocation, again): (Invocation, Option<Again>),
    signals: Arc<Signals>,
    reservation: Reservation,
) -> Report {
    let Invocation {
        input,
        mut context,
        limits,
        environment,
        state,
        now,
        seed,
        module: _,
        owner: _,
        mapping: _,
    } = invocation;
    context.deadline = now.plus(limits.timeout);
    let count = match &input {
        Input::Records(batch) => batch.len(),
        Input::Event { count, .. } => *count,
    };
    let tagging = if module.carrier.is_record_mode() {
        Tagging::Fold
    } else {
        Tagging::Tag
    };
    let records = match &input {
        Input::Records(batch) => Some(batch.clone()),
        Input::Event { .. } => None,
    };
    let limit = limits.fuel(count);
    let stop = again.and_then(|again| again.stop_at_fuel);
    let fuel_allowed = stop.map_or(limit, |stop| stop.min(limit));
    let timeout = again.map_or(limits.timeout, |again| again.timeout);
    let mut guest = Guest {
        signals: Arc::clone(&signals),
        limiter: Limiter::new(limits.memory_bytes),
        ledger: Ledger::new(fuel_allowed),
        effects: EffectBuffer::new(tagging, count, records, &limits),
        state,
        output: Output::new(limits.output_bytes),
        wasi: Wasi::new(environment, now, seed),
        memory: None,
    };
    if again.is_some() {
        guest.wasi.skip_sleeps();
    }
    let mut meter = Meter::new(timeout);
    let job = Job {
        module,
        input,
        context,
        limits: &limits,
        count,
        fuel: fuel_allowed,
    };
    let mut store = store(&module.code, guest);
    let ended = meter.run(&signals, job.run(&mut store)).await;
    let left = store.get_fuel().unwrap_or(0);
    let unsettled = store.data().ledger.unsettled();
    let ended = match ended {
        Ok(Ok(_)) if unsettled > left => Ok(Err(Stop::OutOfFuel.into())),
        ended => ended,
    };
    let fuel = fuel_allowed - left.saturating_sub(unsettled);
    signals.spent(fuel);
    let guest = store.into_data();
    drop(reservation);
    let usage = Usage {
        fuel,
        fuel_allowed,
        memory_bytes: guest.limiter.memory_peak(),
        duration: meter.used(),
    };
    report(ended, guest, timeout, usage, module)
}

/// Asks a guest of the packed ABI what it is, on an instance that is thrown away.
pub(crate) async fn ask_abi(code: &Code, signals: Arc<Signals>) -> Result<Carrier, LoadError> {
    let name = match code {
        Code::Core(code) if matches!(code.exports, Exports::Packed { .. }) => "shardmill_abi_v1",
        Code::Component(code) if !code.is_command() => "abi",
        Code::Core(_) | Code::Component(_) => return Ok(Carrier::Command),
    };
    let limits = FunctionLimits::default();
    let guest = Guest {
        signals: Arc::clone(&signals),
        limiter: Limiter::new(ABI_MEMORY_BYTES),
        ledger: Ledger::new(ABI_FUEL),
        effects: EffectBuffer::new(Tagging::Tag, 0, None, &limits),
        state: Arc::new(NoState),
        output: Output::new(limits.output_bytes),
        wasi: Wasi::new(Arc::default(), UnixMillis(0), [0; 32]),
        memory: None,
    };
    let failed = |what: String| LoadError::Abi(format!("{name} {what}"));
    let mut store = store(code, guest);
    let mut meter = Meter::new(shardmill_core::limits::MIN_TIMEOUT);
    let asked = meter.run(&signals, async {
        give_fuel(&mut store, ABI_FUEL)?;
        match code {
            Code::Core(code) => ask_module(code, &mut store).await,
            Code::Component(code) => component::ask(code, &mut store).await,
        }
    });
    match asked.await {
        Ok(Ok(word)) => carrier_of(name, word),
        Ok(Err(error)) => {
            let guest = store.into_data();
            let stderr_tail = guest.output.stderr_tail();
            let circumstances = Circumstances {
                fuel_allowed: ABI_FUEL,
                refused: guest.limiter.refused(),
                stderr_tail: &stderr_tail,
                is_component: matches!(code, Code::Component(_)),
            };
            Err(failed(match trap::cause(&error, &circumstances) {
                Ok(cause) => format!("failed: {cause}"),
                Err(reason) => format!("could not be called: {reason}"),
            }))
        }
        Err(Cut::TimedOut) => Err(failed(format!(
            "took longer than {:?}",
            shardmill_core::limits::MIN_TIMEOUT
        ))),
        Err(Cut::Panicked(message)) => Err(failed(format!("could not be called: {message}"))),
    }
}

fn store(code: &Code, guest: Guest) -> Store<Guest> {
    let mut store = Store::new(code.engine(), guest);
    store.limiter(|guest| &mut guest.limiter);
    store.set_hostcall_fuel(MAX_LIFTED_BYTES);
    store.set_max_component_handles(MAX_HANDLES);
    store
}

/// What everything of the guest runs on, its start function first.
fn give_fuel(store: &mut Store<Guest>, fuel: u64) -> wasmtime::Result<()> {
    store.set_fuel(fuel)?;
    store.fuel_async_yield_interval(Some(SLICE_FUEL))
}

/// A fresh instance, whose constructors have run.
async fn reactor(
    code: &CoreCode,
    store: &mut Store<Guest>,
    initialize: Option<&ModuleExport>,
) -> wasmtime::Result<Instance> {
    let instance = code.pre.instantiate_async(&mut *store).await?;
    if let Some(initialize) = initialize {
        let initialize = typed::<(), ()>(store, &instance, initialize)?;
        initialize.call_async(&mut *store, ()).await?;
    }
    Ok(instance)
}

async fn ask_module(code: &CoreCode, store: &mut Store<Guest>) -> wasmtime::Result<u32> {
    let Exports::Packed {
        abi, initialize, ..
    } = &code.exports
    else {
        return Err(wasmtime::Error::msg("a command has no mode"));
    };
    let instance = reactor(code, store, initialize.as_ref()).await?;
    let abi = typed::<(), u32>(store, &instance, abi)?;
    abi.call_async(store, ()).await
}

fn typed<P: WasmParams, R: WasmResults>(
    store: &mut Store<Guest>,
    instance: &Instance,
    export: &ModuleExport,
) -> wasmtime::Result<TypedFunc<P, R>> {
    let export = instance.get_module_export(&mut *store, export);
    let function = export.and_then(wasmtime::Extern::into_func);
    function
        .ok_or_else(|| wasmtime::Error::msg("a checked export is missing"))?
        .typed(&*store)
}

/// What is done on the instance.
struct Job<'a> {
    module: &'a LoadedModule,
    input: Input,
    context: BatchContext,
    limits: &'a FunctionLimits,
    count: usize,
    fuel: u64,
}

impl Job<'_> {
    async fn run(self, store: &mut Store<Guest>) -> wasmtime::Result<Returned> {
        give_fuel(store, self.fuel)?;
        let code = match &self.module.code {
            Code::Core(code) => code,
            Code::Component(code) => return self.component(store, code).await,
        };
        match &code.exports {
            Exports::Packed { .. } => self.packed(store, code).await,
            Exports::Command { start } => self.command(store, code, start).await,
        }
    }

    /// Bytes of the batch buffer.
    fn input_len(&self) -> wasmtime::Result<i32> {
        let len = match &self.input {
            Input::Records(batch) => batch.packed_len(&self.context),
            Input::Event { json, .. } => event_len(&self.context, json),
        };
        i32::try_from(len).map_err(|_| bad(format!("a batch of {len} bytes does not fit a guest")))
    }

    /// What a command reads from its standard input.
    fn give_event(&mut self, store: &mut Store<Guest>) {
        let guest = store.data_mut();
        if let Input::Event { json, .. } = &mut self.input {
            guest.wasi.set_stdin(std::mem::take(json));
        }
        guest.output.take_stdout_as_response();
    }

    async fn packed(self, store: &mut Store<Guest>, code: &CoreCode) -> wasmtime::Result<Returned> {
        let Exports::Packed {
            prepare,
            handle,
            memory,
            initialize,
            ..
        } = &code.exports
        else {
            return Err(wasmtime::Error::msg("a command takes no records"));
        };
        let len = self.input_len()?;
        let Self {
            module,
            input,
            context,
            limits,
            count,
            fuel: _,
        } = self;
        let instance = reactor(code, store, initialize.as_ref()).await?;
        let memory = instance
            .get_module_export(&mut *store, memory)
            .and_then(wasmtime::Extern::into_memory);
        let memory = memory.ok_or_else(|| wasmtime::Error::msg("a checked export is missing"))?;
        store.data_mut().memory = Some(memory);
        let prepare = typed::<i32, i32>(store, &instance, prepare)?;
        let ptr = prepare.call_async(&mut *store, len).await?;
        write_input(store, memory, (ptr, len), &input, &context)?;
        drop(input);
        store.data_mut().effects.open();
        let handle = typed::<(i32, i32), i64>(store, &instance, handle)?;
        let packed = handle.call_async(&mut *store, (ptr, len)).await?;
        read_output(memory.data(&*store), packed, module.carrier, limits, count)
            .map(Returned::Answer)
    }

    async fn command(
        mut self,
        store: &mut Store<Guest>,
        code: &CoreCode,
        start: &ModuleExport,
    ) -> wasmtime::Result<Returned> {
        self.give_event(store);
        let instance = code.pre.instantiate_async(&mut *store).await?;
        let start = typed::<(), ()>(store, &instance, start)?;
        match start.call_async(&mut *store, ()).await {
            Err(error) if error.downcast_ref::<Stop>() != Some(&Stop::Exit(0)) => Err(error),
            Ok(()) | Err(_) => Ok(Returned::Response),
        }
    }
}

fn write_input(
    store: &mut Store<Guest>,
    memory: Memory,
    (ptr, len): (i32, i32),
    input: &Input,
    context: &BatchContext,
) -> wasmtime::Result<()> {
    let bytes = memory.data_mut(store);
    let size = bytes.len();
    if ptr % 8 != 0 {
        return Err(bad(format!(
            "shardmill_prepare({len}) returned {ptr:#x}, which is not a multiple of 8"
        )));
    }
    let Some(out) = crate::guest::range_mut(bytes, ptr, len) else {
        return Err(bad(format!(
            "shardmill_prepare({len}) returned {ptr:#x}, whose bytes are not in a memory of {size:#x}"
        )));
    };
    write_packed(input, context, out);
    Ok(())
}

/// Writes the batch buffer.
fn write_packed(input: &Input, context: &BatchContext, out: &mut [u8]) {
    match input {
        Input::Records(batch) => batch.write_packed(context, out),
        Input::Event { json, count } => write_event(context, *count, json, out),
    }
}

fn read_output(
    memory: &[u8],
    packed: i64,
    carrier: Carrier,
    limits: &FunctionLimits,
    count: usize,
) -> wasmtime::Result<Answer> {
    let (ptr, len) = ((packed >> 32) as i32, packed as i32);
    let Some(bytes) = crate::guest::range(memory, ptr, len) else {
        return Err(bad(format!(
            "shardmill_handle returned {:#x} bytes at {:#x}, which are not in a memory of {:#x}",
            len.cast_unsigned(),
            ptr.cast_unsigned(),
            memory.len()
        )));
    };
    judge_answer(bytes, carrier, limits, count)
}

/// Reads an answer buffer, and whether its status suits the mode.
fn judge_answer(
    bytes: &[u8],
    carrier: Carrier,
    limits: &FunctionLimits,
    count: usize,
) -> wasmtime::Result<Answer> {
    let Carrier::Packed { mode, .. } = carrier else {
        return Err(bad("a command has no answer".into()));
    };
    let allowed = match mode {
        Mode::Record | Mode::Batch => limits.answer_bytes,
        Mode::Event => ANSWER_MIN_BYTES + MAX_RESPONSE_BYTES,
    };
    if bytes.len() > allowed {
        return Err(Stop::TooLarge {
            size: bytes.len() as u64,
            allowed: allowed as u64,
        }
        .into());
    }
    let answer =
        read_answer(bytes, count).map_err(|error: abi::BadAnswer| bad(error.to_string()))?;
    let status = match (&answer, mode) {
        (Answer::Error { .. }, _)
        | (Answer::Ok(_), Mode::Record | Mode::Batch)
        | (Answer::Partial(..), Mode::Batch)
        | (Answer::Json(_), Mode::Event) => return Ok(answer),
        (Answer::Ok(_), Mode::Event) => "0 (ok)",
        (Answer::Partial(..), Mode::Record | Mode::Event) => "1 (partial)",
        (Answer::Json(_), Mode::Record | Mode::Batch) => "3 (JSON)",
    };
    let mode = match mode {
        Mode::Record => "a record",
        Mode::Batch => "a batch",
        Mode::Event => "an event",
    };
    Err(bad(format!(
        "{mode}-mode handler answered with status {status}"
    )))
}

fn bad(reason: String) -> wasmtime::Error {
    Stop::BadAnswer(reason).into()
}

type Ended = Result<wasmtime::Result<Returned>, Cut>;

fn report(
    ended: Ended,
    mut guest: Guest,
    timeout: Duration,
    usage: Usage,
    module: &LoadedModule,
) -> Report {
    let carrier = module.carrier;
    let named = match &ended {
        Ok(Ok(Returned::Answer(Answer::Error { record, .. }))) if !carrier.is_record_mode() => {
            *record
        }
        _ => None,
    };
    let outcome = match judge(ended, &mut guest, timeout, usage, module) {
        Ok(outcome) => outcome,
        Err(Ending::Failed(cause)) => Outcome::Failed(Failure {
            cause,
            record: named.or(guest.effects.current()),
        }),
        Err(Ending::Throttled(reason)) => Outcome::Throttled { reason },
    };
    let keep = match &outcome {
        Outcome::Ok { .. } | Outcome::Partial { .. } | Outcome::Json { .. } => Keep::All,
        Outcome::Failed(failure) if !failure.cause.breaks_contract() => Keep::Done,
        Outcome::Failed(_) | Outcome::Throttled { .. } => Keep::Nothing,
    };
    let output = guest.output.collect();
    Report {
        outcome,
        effects: guest.effects.finish(keep),
        record_fuel: guest.ledger.take_marks(),
        usage,
        log: output.lines,
        stderr_tail: output.stderr_tail,
        output_cut_bytes: output.cut_bytes,
    }
}

enum Ending {
    Failed(Cause),
    Throttled(String),
}

impl From<Cause> for Ending {
    fn from(cause: Cause) -> Self {
        Self::Failed(cause)
    }
}

fn judge(
    ended: Ended,
    guest: &mut Guest,
    timeout: Duration,
    usage: Usage,
    module: &LoadedModule,
) -> Result<Outcome, Ending> {
    let carrier = module.carrier;
    let returned = match ended {
        Ok(Ok(returned)) => returned,
        Ok(Err(error)) => {
            let stderr_tail = guest.output.stderr_tail();
            let circumstances = Circumstances {
                fuel_allowed: usage.fuel_allowed,
                refused: guest.limiter.refused(),
                stderr_tail: &stderr_tail,
                is_component: matches!(module.code, Code::Component(_)),
            };
            return Err(match trap::cause(&error, &circumstances) {
                Ok(cause) => Ending::Failed(cause),
                Err(reason) => {
                    tracing::warn!(reason, "an attempt could not be run");
                    Ending::Throttled(reason)
                }
            });
        }
        Err(Cut::TimedOut) => {
            return Err(Cause::TimedOut {
                allowed: timeout,
                fuel_used: usage.fuel,
            }
            .into());
        }
        Err(Cut::Panicked(message)) => {
            tracing::error!(message, "the host panicked under a guest");
            return Err(Ending::Throttled(format!("host fault: {message}")));
        }
    };
    match returned {
        Returned::Answer(Answer::Error { kind, message, .. }) => Err(Cause::HandlerError {
            error_type: cut(kind, MAX_ERROR_TYPE_BYTES),
            message: cut(message, MAX_ERROR_MESSAGE_BYTES),
        }
        .into()),
        Returned::Answer(Answer::Ok(_))
            if carrier.is_record_mode() && !guest.effects.reached_the_end() =>
        {
            let reached = guest.effects.current().map_or(0, |record| record + 1);
            Err(Cause::BadAnswer {
                reason: format!("answered ok after progress through {reached} records"),
            }
            .into())
        }
        Returned::Answer(Answer::Ok(text)) => Ok(Outcome::Ok { text }),
        Returned::Answer(Answer::Partial(failed, text)) => Ok(Outcome::Partial { failed, text }),
        Returned::Answer(Answer::Json(text)) => Ok(Outcome::Json { text: json(text)? }),
        Returned::Response => {
            let response = guest.output.response().unwrap_or_default();
            if response.size > MAX_RESPONSE_BYTES as u64 {
                let (size, allowed) = (response.size, MAX_RESPONSE_BYTES as u64);
                return Err(Cause::ResponseTooLarge { size, allowed }.into());
            }
            let text = String::from_utf8(response.bytes).map_err(|_| Cause::BadAnswer {
                reason: "response is not UTF-8".into(),
            })?;
            Ok(Outcome::Json { text: json(text)? })
        }
    }
}

/// The beginning of a text, up to so many bytes: it is kept with a failure, and shown in lists.
fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

/// Checks that a response is JSON; nothing stands for `null`.
fn json(text: String) -> Result<String, Cause> {
    if text.trim().is_empty() {
        return Ok("null".into());
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Cause::BadAnswer {
            reason: format!("response is not JSON: {error}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_json_and_nothing_is_null() {
        assert_eq!(json("{\"a\": [1]}\n".into()), Ok("{\"a\": [1]}\n".into()));
        assert_eq!(json(" \n".into()), Ok("null".into()));
        assert!(matches!(json("hello".into()), Err(Cause::BadAnswer { .. })));
        assert!(matches!(json("{} {}".into()), Err(Cause::BadAnswer { .. })));
    }
}
