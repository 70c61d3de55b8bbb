//! An attempt on a component. The batch goes in and the answer comes out by the canonical ABI,
//! which copies each once and checks every pointer.

use shardmill_core::abi::Answer;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::{Job, Returned, judge_answer, write_packed};
use crate::component::{ComponentCode, Exports};
use crate::guest::Guest;
use crate::trap::Stop;

/// The type of an error that is one line.
const ERROR_TYPE: &str = "Error";

impl Job<'_> {
    pub(super) async fn component(
        mut self,
        store: &mut Store<Guest>,
        code: &ComponentCode,
    ) -> wasmtime::Result<Returned> {
        let handle = match &code.exports {
            Exports::Handler { handle, .. } => handle,
            Exports::Command { run } => {
                self.give_event(store);
                let instance = instantiate(code, store).await?;
                let run = instance.get_typed_func::<(), (Result<(), ()>,)>(&mut *store, run)?;
                return match run.call_async(&mut *store, ()).await {
                    Ok((Ok(()),)) => Ok(Returned::Response),
                    Ok((Err(()),)) => Err(Stop::Exit(1).into()),
                    Err(error) if error.downcast_ref::<Stop>() == Some(&Stop::Exit(0)) => {
                        Ok(Returned::Response)
                    }
                    Err(error) => Err(error),
                };
            }
        };
        let len = self.input_len()?;
        let instance = instantiate(code, store).await?;
        let mut batch = vec![0; len.cast_unsigned() as usize];
        write_packed(&self.input, &self.context, &mut batch);
        drop(self.input);
        let handle =
            instance.get_typed_func::<(&[u8],), (Result<Vec<u8>, String>,)>(&mut *store, handle)?;
        store.data_mut().effects.open();
        let (answer,) = handle.call_async(&mut *store, (&batch,)).await?;
        Ok(Returned::Answer(match answer {
            Ok(bytes) => judge_answer(&bytes, self.module.carrier, self.limits, self.count)?,
            Err(text) => error(&text),
        }))
    }
}

/// Asks a component of the world `handler` for its mode.
pub(super) async fn ask(code: &ComponentCode, store: &mut Store<Guest>) -> wasmtime::Result<u32> {
    let Exports::Handler { abi, .. } = &code.exports else {
        return Err(wasmtime::Error::msg("a command has no mode"));
    };
    let instance = instantiate(code, store).await?;
    let abi = instance.get_typed_func::<(), (u32,)>(&mut *store, abi)?;
    Ok(abi.call_async(&mut *store, ()).await?.0)
}

async fn instantiate(code: &ComponentCode, store: &mut Store<Guest>) -> wasmtime::Result<Instance> {
    code.pre.instantiate_async(&mut *store).await
}

fn error(text: &str) -> Answer {
    let (kind, message) = text.split_once('\n').unwrap_or((ERROR_TYPE, text));
    Answer::Error {
        kind: kind.into(),
        message: message.into(),
        record: None,
    }
}
