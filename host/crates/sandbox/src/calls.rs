//! The host calls of `docs/abi.md`, module `shardmill`: each finds its arguments in the guest's
//! memory, pays, and hands over to the effects or the output.

use shardmill_core::limits::{
    MAX_COUNTER_NAME_BYTES, MAX_EMIT_BYTES, MAX_LOG_BYTES, MAX_STATE_NAME_BYTES,
    MAX_STATE_VALUE_BYTES,
};
use shardmill_core::sandbox::LogLevel;
use wasmtime::{Caller, Linker, Result};

use crate::effects::{Called, Code, MAX_STREAM_NAME_BYTES};
use crate::guest::{Guest, charge, mark, memory, out_of_bounds, range};

/// The imports' module.
pub(crate) const MODULE: &str = "shardmill";

// Prices in fuel: `docs/abi.md`, "Price in fuel". Each byte that crosses costs one more.
pub(crate) const PROGRESS_FUEL: u64 = 10;
pub(crate) const COUNTER_FUEL: u64 = 100;
pub(crate) const STATE_FUEL: u64 = 500;
pub(crate) const EMIT_FUEL: u64 = 1_000;
pub(crate) const LOG_FUEL: u64 = 200;

/// Offers the calls to guests.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> Result<()> {
    linker.func_wrap(MODULE, "progress", progress)?;
    linker.func_wrap(MODULE, "counter_add", counter_add)?;
    linker.func_wrap(MODULE, "state_get", state_get)?;
    linker.func_wrap(MODULE, "state_set", state_set)?;
    linker.func_wrap(MODULE, "state_delete", state_delete)?;
    linker.func_wrap(MODULE, "emit", emit)?;
    linker.func_wrap(MODULE, "log", log)?;
    Ok(())
}

fn progress(mut caller: Caller<'_, Guest>, index: i32) -> Result<i32> {
    charge(&mut caller, PROGRESS_FUEL)?;
    let code = code(caller.data_mut().effects.progress(index.cast_unsigned()))?;
    if code == 0 && caller.data().effects.is_by_record() {
        mark(&mut caller)?;
    }
    Ok(code)
}

fn counter_add(
    mut caller: Caller<'_, Guest>,
    name: i32,
    name_len: i32,
    amount: i64,
) -> Result<i32> {
    charge(
        &mut caller,
        COUNTER_FUEL + crossing(name_len, MAX_COUNTER_NAME_BYTES),
    )?;
    let (memory, guest) = memory(&mut caller)?.data_and_store_mut(&mut caller);
    let name = range(memory, name, name_len).ok_or_else(out_of_bounds)?;
    code(guest.effects.counter_add(name, amount))
}

fn state_get(
    mut caller: Caller<'_, Guest>,
    name: i32,
    name_len: i32,
    out: i32,
    cap: i32,
) -> Result<i64> {
    charge(
        &mut caller,
        STATE_FUEL + crossing(name_len, MAX_STATE_NAME_BYTES),
    )?;
    let memory = memory(&mut caller)?;
    let (bytes, guest) = memory.data_and_store_mut(&mut caller);
    range(bytes, out, cap).ok_or_else(out_of_bounds)?;
    let name = range(bytes, name, name_len).ok_or_else(out_of_bounds)?;
    let value = match guest.effects.state_get(name, &*guest.state)? {
        Ok(value) => value,
        Err(code) => return Ok(code as i64),
    };
    if value.len() <= cap.cast_unsigned() as usize {
        charge(&mut caller, value.len() as u64)?;
        let out = &mut memory.data_mut(&mut caller)[out.cast_unsigned() as usize..];
        out[..value.len()].copy_from_slice(&value);
    }
    Ok(value.len() as i64)
}

fn state_set(
    mut caller: Caller<'_, Guest>,
    name: i32,
    name_len: i32,
    value: i32,
    value_len: i32,
) -> Result<i32> {
    let bytes =
        crossing(name_len, MAX_STATE_NAME_BYTES) + crossing(value_len, MAX_STATE_VALUE_BYTES);
    charge(&mut caller, STATE_FUEL + bytes)?;
    let (memory, guest) = memory(&mut caller)?.data_and_store_mut(&mut caller);
    let name = range(memory, name, name_len).ok_or_else(out_of_bounds)?;
    let value = range(memory, value, value_len).ok_or_else(out_of_bounds)?;
    code(guest.effects.state_set(name, Some(value)))
}

fn state_delete(mut caller: Caller<'_, Guest>, name: i32, name_len: i32) -> Result<i32> {
    charge(
        &mut caller,
        STATE_FUEL + crossing(name_len, MAX_STATE_NAME_BYTES),
    )?;
    let (memory, guest) = memory(&mut caller)?.data_and_store_mut(&mut caller);
    let name = range(memory, name, name_len).ok_or_else(out_of_bounds)?;
    code(guest.effects.state_set(name, None))
}

fn emit(
    mut caller: Caller<'_, Guest>,
    stream: i32,
    stream_len: i32,
    key: i32,
    key_len: i32,
    data: i32,
    data_len: i32,
) -> Result<i32> {
    let bytes = crossing(stream_len, MAX_STREAM_NAME_BYTES)
        + crossing(key_len, MAX_EMIT_BYTES)
        + crossing(data_len, MAX_EMIT_BYTES);
    charge(&mut caller, EMIT_FUEL + bytes)?;
    let (memory, guest) = memory(&mut caller)?.data_and_store_mut(&mut caller);
    let stream = range(memory, stream, stream_len).ok_or_else(out_of_bounds)?;
    let key = range(memory, key, key_len).ok_or_else(out_of_bounds)?;
    let data = range(memory, data, data_len).ok_or_else(out_of_bounds)?;
    code(guest.effects.emit(stream, key, data))
}

fn log(mut caller: Caller<'_, Guest>, level: i32, text: i32, text_len: i32) -> Result<i32> {
    let kept = text_len.cast_unsigned().min(MAX_LOG_BYTES as u32);
    charge(&mut caller, LOG_FUEL + u64::from(kept))?;
    let (memory, guest) = memory(&mut caller)?.data_and_store_mut(&mut caller);
    let text = range(memory, text, text_len).ok_or_else(out_of_bounds)?;
    let level = match level {
        1 => LogLevel::Error,
        2 => LogLevel::Warn,
        3 => LogLevel::Info,
        4 => LogLevel::Debug,
        5 => LogLevel::Trace,
        _ => return Ok(Code::Unknown as i32),
    };
    guest.output.log(level, &text[..kept as usize]);
    Ok(0)
}

/// What the bytes of an argument cost: nothing where it is refused for its length.
fn crossing(len: i32, limit: usize) -> u64 {
    let len = len.cast_unsigned();
    if len as usize <= limit {
        u64::from(len)
    } else {
        0
    }
}

fn code(called: Called<()>) -> Result<i32> {
    Ok(called?.map_or_else(|code| code as i32, |()| 0))
}
