//! Carries layers into the tables, makes the tables durable from time to time, and gives back
//! segments that nothing refers to any more.

use std::sync::Arc;

use redb::Durability;

use super::shared::{Shared, State, Stop};
use crate::journal::Position;
use crate::layer::Layer;

/// Works until it is stopped, or the tables fail.
pub(super) fn run(shared: &Shared) {
    let applied = shared.state().applied;
    let mut tables = Behind {
        durable: applied,
        undurable_bytes: 0,
        last: None,
    };
    release(shared, tables.durable);
    loop {
        let stop = match tables.wait(shared) {
            Wake::Stop(Stop::AtOnce) => return,
            Wake::Stop(Stop::Orderly) => true,
            Wake::Due => false,
        };
        if shared.has_failed() {
            return;
        }
        let due = tables.carry(shared, stop);
        if let Err(error) = due {
            shared.fail(&error.to_string());
            return;
        }
        if stop {
            return;
        }
    }
}

/// What the tables' thread remembers.
struct Behind {
    /// The position in the durable tables.
    durable: Position,
    /// Bytes of frames that are in the tables, but not durably.
    undurable_bytes: u64,
    /// An empty layer at the end of what is in the tables, when that is not durable.
    last: Option<Layer>,
}

enum Wake {
    /// There is something to write.
    Due,
    Stop(Stop),
}

impl Behind {
    /// Waits until a layer is large enough or old enough.
    fn wait(&self, shared: &Shared) -> Wake {
        let mut state = shared.state();
        if self.last.is_none() {
            state = shared.wait(state, None, |state| {
                !state.active.is_empty() || state.stop.is_some() || shared.has_failed()
            });
        }
        let interval = shared.options.table_sync_interval;
        state = shared.wait(state, Some(interval), |state| {
            shared.is_due(&state.active) || state.stop.is_some() || shared.has_failed()
        });
        state.stop.map_or(Wake::Due, Wake::Stop)
    }

    /// Writes the layer.
    fn carry(&mut self, shared: &Shared, stop: bool) -> Result<(), crate::tables::TablesError> {
        let (layer, timed) = {
            let mut state = shared.state();
            let timed = !shared.is_due(&state.active);
            (freeze(&mut state), timed)
        };
        let store_id = shared.journal.store_id();
        let frame_bytes = layer.as_ref().map_or(0, |layer| layer.frame_bytes);
        let durable =
            stop || timed || self.undurable_bytes + frame_bytes >= shared.options.table_sync_bytes;
        let durability = if durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        let written = layer.as_deref().or(self.last.as_ref());
        let Some(written) = written else {
            return Ok(());
        };
        shared.tables.apply(written, store_id, durability)?;
        let end = Layer {
            position: written.position,
            revision: written.revision,
            next_stream: written.next_stream,
            ..Layer::default()
        };
        {
            let mut state = shared.state();
            state.frozen = None;
            state.applied = end.position;
        }
        shared.notify();
        if durable {
            self.durable = end.position;
            self.undurable_bytes = 0;
            self.last = None;
            release(shared, self.durable);
        } else {
            self.undurable_bytes += frame_bytes;
            self.last = Some(end);
        }
        Ok(())
    }
}

fn freeze(state: &mut State) -> Option<Arc<Layer>> {
    if state.active.is_empty() {
        return None;
    }
    let layer = Arc::new(std::mem::take(&mut state.active));
    state.frozen = Some(Arc::clone(&layer));
    Some(layer)
}

/// Gives back the segments before `durable` that nothing in the tables refers to.
fn release(shared: &Shared, durable: Position) {
    let live = match shared.tables.live_segments() {
        Ok(live) => live,
        Err(error) => {
            tracing::warn!("segments are kept: {error}");
            return;
        }
    };
    for segment in shared.journal.segments() {
        if segment.number >= durable.segment || live.contains_key(&segment.number) {
            continue;
        }
        if let Err(error) = shared.journal.release(segment.number, durable) {
            tracing::warn!("release segment {}: {error}", segment.number);
        }
    }
}
