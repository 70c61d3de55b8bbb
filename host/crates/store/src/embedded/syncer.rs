//! Makes groups durable, then visible, then acknowledges them, in order.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use shardmill_core::{Block, ShardKey};

use super::shared::Shared;
use super::writer::{InFlight, WrittenFrame};
use crate::journal::Syncer;
use crate::layer::Written;
use crate::resolved::NewBlock;
use crate::tx::CommitError;

/// Works until the writer is gone.
pub(super) fn run(shared: &Shared, mut syncer: Syncer, groups: Receiver<InFlight>) -> Syncer {
    for group in groups {
        let outcome = match group.frame {
            Some(frame) => make_durable(shared, &mut syncer, frame),
            None => still_works(shared),
        };
        for (reply, answer, room) in group.answers {
            let answer = match &outcome {
                Ok(()) => answer,
                Err(error) => answer.and(Err(error.clone())),
            };
            drop(room);
            // Whoever waited may have gone away.
            let _ = reply.send(answer);
        }
    }
    syncer
}

/// Whether what was written before is durable: a repeated number's first may be part of a group
/// whose sync failed.
fn still_works(shared: &Shared) -> Result<(), CommitError> {
    if shared.has_failed() {
        return Err(CommitError::Unknown("the store has failed".into()));
    }
    Ok(())
}

fn make_durable(
    shared: &Shared,
    syncer: &mut Syncer,
    frame: WrittenFrame,
) -> Result<(), CommitError> {
    still_works(shared)?;
    let records = frame.blocks.iter().map(NewBlock::count).sum();
    let blocks = to_blocks(frame.blocks);
    match syncer.sync() {
        Ok(durable) if durable >= frame.end => {}
        Ok(durable) => {
            let why = format!("synced up to {durable} only, not to {}", frame.end);
            shared.fail(&why);
            return Err(CommitError::Unknown(why));
        }
        Err(error) => {
            shared.fail(&error.to_string());
            return Err(CommitError::Unknown(error.to_string()));
        }
    }
    let written = Written {
        contents: &frame.contents,
        place: frame.place,
        end: frame.end,
    };
    shared.show(&written, blocks);
    let counts = &shared.counts;
    counts.groups.fetch_add(1, Ordering::Relaxed);
    let transactions = frame.contents.transactions;
    counts
        .transactions
        .fetch_add(transactions, Ordering::Relaxed);
    counts.records.fetch_add(records, Ordering::Relaxed);
    counts
        .frame_bytes
        .fetch_add(u64::from(frame.place.len), Ordering::Relaxed);
    Ok(())
}

/// The blocks that readers get. One that cannot be made is left out: the run in the cache then
/// begins behind it, and readers go to the disk.
fn to_blocks(blocks: Vec<NewBlock>) -> Vec<(ShardKey, Block)> {
    let made = blocks
        .into_iter()
        .filter_map(|block| Some((block.shard, block.to_block().ok()?)));
    made.collect()
}
