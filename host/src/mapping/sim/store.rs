//! The store in memory as a host sees it that may die at any commit, and that is refused some.
//! Every cursor that is written is held against the one before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shardmill_core::mapping::Cursor;
use shardmill_core::sandbox::BoxFuture;
use shardmill_store::{CommitError, Key, Memory, Receipt, Store, Table, Tx, Value};
use tokio_util::sync::CancellationToken;

use super::log::Log;
use super::plan::{GRID_MS, HELP_SLOTS};
use crate::clock::Clock;

/// What goes wrong next.
///
/// At the instant of a step the runtime wakes pollers in an order that is not in our hand: commits
/// are not counted then, and refused to each writer by itself.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// The host dies at this commit, counted from 1; 0: it does not. After it is done, or before.
    pub(super) crash_at: u32,
    pub(super) crash_after: bool,
    /// The same for commits of an operator, whenever they come.
    pub(super) operator_crash: Option<(u32, bool)>,
    /// Commits that are refused to each writer.
    pub(super) refuse: u32,
    /// Those that were, by what the writer writes first.
    pub(super) refused: BTreeMap<Key, u32>,
}

tokio::task_local! {
    /// Whether a commit is an operator's: of a step of the plan, not of a poller.
    pub(super) static OPERATOR: ();
}

/// What happens to a commit.
enum Fate {
    Done,
    Refused,
    DiesBefore,
    DiesAfter,
}

pub(super) struct Shell {
    pub(super) memory: Arc<Memory>,
    pub(super) log: Arc<Log>,
    clock: Clock,
    pub(super) faults: Mutex<Faults>,
    /// Replaced when the host starts again.
    pub(super) died: Mutex<CancellationToken>,
    cursors: Mutex<BTreeMap<Key, Cursor>>,
}

impl Shell {
    pub(super) fn new(memory: Arc<Memory>, log: Arc<Log>, clock: Clock) -> Self {
        Self {
            memory,
            log,
            clock,
            faults: Mutex::default(),
            died: Mutex::default(),
            cursors: Mutex::default(),
        }
    }

    /// A token that is cancelled when the host dies.
    pub(super) fn died(&self) -> CancellationToken {
        self.died.lock().unwrap().clone()
    }

    fn fate(&self, tx: &Tx) -> Fate {
        let mut faults = self.faults.lock().unwrap();
        let counts = self.clock.now().0 % GRID_MS < HELP_SLOTS;
        if faults.crash_at > 0 && counts {
            faults.crash_at -= 1;
            if faults.crash_at == 0 {
                return match faults.crash_after {
                    true => Fate::DiesAfter,
                    false => Fate::DiesBefore,
                };
            }
        }
        if let Some((left, after)) = &mut faults.operator_crash
            && OPERATOR.try_with(|()| ()).is_ok()
        {
            *left -= 1;
            let after = *after;
            if *left == 0 {
                faults.operator_crash = None;
                self.log.reach("died under an operator", 1);
                return if after {
                    Fate::DiesAfter
                } else {
                    Fate::DiesBefore
                };
            }
        }
        let refuse = faults.refuse;
        if refuse > 0
            && let Some((key, _)) = tx.writes.first()
        {
            let refused = faults.refused.entry(key.clone()).or_default();
            *refused += 1;
            if *refused <= refuse {
                self.log.reach("refused", 1);
                return Fate::Refused;
            }
        }
        Fate::Done
    }

    async fn commit_and_check(&self, tx: Tx) -> Result<Receipt, CommitError> {
        let is_cursor = |key: &Key| key.table() == Some(Table::Cursor);
        let cursors: Vec<(Key, Value)> = tx
            .writes
            .iter()
            .filter(|(key, _)| is_cursor(key))
            .cloned()
            .collect();
        let receipt = self.memory.commit(tx).await?;
        for (key, value) in cursors {
            if let Value::Inline(json) = value {
                let cursor: Cursor = serde_json::from_slice(&json).expect("a cursor");
                self.check(key, cursor);
            }
        }
        Ok(receipt)
    }

    /// Progress never goes back, and parts lie in order before the mark.
    fn check(&self, key: Key, cursor: Cursor) {
        let mut cursors = self.cursors.lock().unwrap();
        for lane in &cursor.lanes {
            let mut at = None;
            for part in &lane.parts {
                let span = part.span;
                let apart = at.is_none_or(|at| span.from >= at);
                if !apart || span.to > lane.mark || span.from > span.to {
                    let text = format!("parts of a lane are out of order: {lane:?}");
                    self.log.violation(text);
                }
                at = Some(span.to);
            }
        }
        if let Some(before) = cursors.get(&key)
            && before.epoch == cursor.epoch
        {
            let same = before.lanes.len() == cursor.lanes.len();
            self.log.reach("relaned", u64::from(!same));
            let mut lanes = before.lanes.iter().zip(&cursor.lanes);
            let back = match same {
                true => lanes.any(|(b, a)| a.mark < b.mark || a.low() < b.low()),
                false => cursor.low() < before.high(),
            };
            if back {
                let text = format!("progress went back from {before:?} to {cursor:?}");
                self.log.violation(text);
            }
            if cursor.windows_closed_to < before.windows_closed_to {
                let text = format!("a window is open again: {before:?}, {cursor:?}");
                self.log.violation(text);
            }
        }
        cursors.insert(key, cursor);
    }
}

impl Store for Shell {
    fn commit(&self, tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        Box::pin(async move {
            match self.fate(&tx) {
                Fate::Done => return self.commit_and_check(tx).await,
                Fate::Refused => {
                    return Err(CommitError::Full {
                        free_bytes: 0,
                        low_water_bytes: 1,
                    });
                }
                Fate::DiesBefore => {}
                Fate::DiesAfter => {
                    // What it came to, nobody hears.
                    self.commit_and_check(tx).await.ok();
                }
            }
            self.died().cancel();
            std::future::pending().await
        })
    }

    shardmill_store::pass_on!(memory: read seek extent subscribe get scan scan_back blob has_room catalog);
}
