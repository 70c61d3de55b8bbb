//! Which versions a mapping runs: what it names, unless it went back from a version that failed
//! its trial. The rules are `shardmill_core::mapping::Rollout`'s; here they are kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use shardmill_core::ShardId;
use shardmill_core::mapping::{Course, Judgement, RolledBack, Rollout, Step, Trial};
use shardmill_store::{Expect, Key, ReadError, Table, Tx, Urgency, Value};

use super::resource::{Inner, Mapping, MappingError, mapping_key};
use crate::functions::{Function, FunctionError, Loaded, Route, label, to_json};

/// The rollout of one mapping, which all its workers share.
pub(super) struct MappingRollout {
    state: Mutex<Rollout>,
    /// Held while the state is written, so that the newest is written last.
    saving: tokio::sync::Mutex<()>,
}

/// What a mapping runs now.
pub(super) struct Running {
    /// The versions.
    pub(super) route: Arc<Route>,
    /// Why none of them may run, if so, and the version that is at fault.
    pub(super) stands_still: Option<(String, u64)>,
}

/// A roll-back for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RollBackView {
    /// The version that failed its trial.
    pub from: String,
    /// The version that runs instead; `None`: none can, and the mapping stands still.
    pub to: Option<String>,
    /// When.
    pub at: shardmill_core::UnixMillis,
    /// Batches that were looked at.
    pub batches: u32,
    /// Those among them that failed.
    pub failed: u32,
    /// Why.
    pub reason: String,
}

/// A version on trial, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrialView {
    /// The version.
    pub version: String,
    /// How it stands.
    #[serde(flatten)]
    pub trial: Trial,
}

impl MappingRollout {
    pub(super) fn open(inner: &Inner, mapping: &Mapping) -> Result<Self, ReadError> {
        let stored = inner.store.get(&rollout_key(mapping))?;
        let state = match stored {
            None => Rollout::default(),
            Some(stored) => serde_json::from_slice(&stored.value).map_err(|error| {
                ReadError::Damaged(format!("versions of mapping {:?}: {error}", mapping.name))
            })?,
        };
        Ok(Self {
            state: Mutex::new(state),
            saving: tokio::sync::Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, Rollout> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it went back from, while `named` is what the mapping names.
    pub(super) fn roll_back(&self, named: &str) -> Option<RollBackView> {
        let state = self.state();
        let back = state.rolled_back.as_ref().filter(|b| b.of == named)?;
        Some(RollBackView {
            from: label(back.from),
            to: back.to.map(label),
            at: back.at,
            batches: back.trial.batches,
            failed: back.trial.failed,
            reason: back.reason.clone(),
        })
    }

    pub(super) fn trials(&self) -> Vec<TrialView> {
        let state = self.state();
        let view = |(version, trial): (&u64, &Trial)| TrialView {
            version: label(*version),
            trial: *trial,
        };
        state.trials.iter().map(view).collect()
    }

    async fn save(&self, inner: &Inner, mapping: &Mapping) -> Result<(), MappingError> {
        let _saving = self.saving.lock().await;
        let state = self.state().clone();
        let tx = Tx {
            expect: vec![Expect::Present(mapping_key(mapping))],
            writes: vec![(rollout_key(mapping), Value::Inline(to_json(&state)))],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        inner.store.commit(tx).await?;
        Ok(())
    }

    /// Lets a version that was rolled back be tried once more. Says whether there was one.
    pub(super) async fn resume(
        &self,
        inner: &Inner,
        mapping: &Mapping,
    ) -> Result<bool, MappingError> {
        let before = self.state().clone();
        let was = self.state().resume();
        if was && let Err(error) = self.save(inner, mapping).await {
            *self.state() = before;
            return Err(error);
        }
        Ok(was)
    }
}

/// Where the rollout of a mapping is stored.
pub(super) fn rollout_key(mapping: &Mapping) -> Key {
    Key::new(Table::Rollout, &mapping.scope).part(&mapping.id)
}

impl Inner {
    /// What a mapping runs now.
    pub(super) fn running(&self, mapping: &Mapping) -> Result<Running, FunctionError> {
        let scope = &mapping.scope;
        let route = self.functions.route(scope, &mapping.named())?;
        let as_named = |route| Running {
            route,
            stands_still: None,
        };
        if mapping.policy.demand().is_none() {
            return Ok(as_named(route));
        }
        let rollout = self.rollout_of(mapping)?;
        let course = rollout.state().course(&route.stamp);
        match course {
            Course::AsNamed => Ok(as_named(route)),
            Course::Back(version) => {
                let back = self.functions.back_to(scope, &route, version)?;
                Ok(as_named(Arc::new(back)))
            }
            Course::StandStill => {
                let state = rollout.state();
                let back = state.rolled_back.as_ref();
                Ok(Running {
                    route,
                    stands_still: back.map(|back| (back.reason.clone(), back.from)),
                })
            }
        }
    }

    /// Takes note of an attempt that ended: it may be the one after which the mapping goes back
    /// to the version before.
    pub(super) async fn note_attempt(
        &self,
        mapping: &Mapping,
        shard: ShardId,
        loaded: &Loaded,
        judgement: &Judgement,
    ) {
        let Some(demand) = mapping.policy.demand() else {
            return;
        };
        let failed = match judgement {
            Judgement::Success => false,
            Judgement::Partial(_) | Judgement::Failed(_) => true,
            // The handler is not at fault.
            Judgement::Throttled(_) => return,
        };
        let (Ok(rollout), Ok(running)) = (self.rollout_of(mapping), self.running(mapping)) else {
            return;
        };
        let function = &loaded.function;
        let numbers = running.route.numbers();
        let back = {
            let mut state = rollout.state();
            let gone = state.rolled_back.as_ref();
            if gone.is_some_and(|b| b.of == running.route.stamp && b.from == function.number()) {
                // Another shard was quicker.
                return;
            }
            match state.note(function.number(), failed, &numbers, demand) {
                Step::None => return,
                Step::Trusted => None,
                Step::GoBack(to, trial) => {
                    let back = self.roll_back(mapping, function, to, trial, &running.route);
                    state.rolled_back = Some(back.clone());
                    Some(back)
                }
            }
        };
        if let Err(error) = rollout.save(self, mapping).await {
            let mapping = &mapping.name;
            tracing::warn!(mapping, %error, "which versions it trusts is not kept over a restart");
        }
        let Some(back) = back else { return };
        let counts = self.metrics_of(&mapping.id).shard(shard);
        counts.add(&counts.roll_backs, 1);
        let (name, reason) = (&mapping.name, &back.reason);
        tracing::error!(mapping = name, %shard, reason, "rolled back");
        self.metrics_of(&mapping.id)
            .set_last_result(&format!("PROBLEM: {reason}"));
        self.changed(&mapping.id);
    }

    /// The roll-back to `to`, or a standstill where that cannot run.
    fn roll_back(
        &self,
        mapping: &Mapping,
        from: &Function,
        to: u64,
        trial: Trial,
        route: &Route,
    ) -> RolledBack {
        let Trial { batches, failed } = trial;
        let failed = format!(
            "version {} failed {failed} of its first {batches} batches",
            from.label()
        );
        let before = self.functions.back_to(&mapping.scope, route, to);
        let format = |f: &Function| f.settings.state_format;
        let (to, reason) = match before.map(|route| format(&route.first)) {
            Ok(old) if old == format(from) => (
                Some(to),
                format!("{failed}: version {} runs instead", label(to)),
            ),
            Ok(old) => (
                None,
                format!(
                    "{failed}, and version {} cannot read its state: it has state_format {old}, \
                     the newer one {}: deploy a version that can, or resume the mapping",
                    label(to),
                    format(from)
                ),
            ),
            Err(error) => (
                None,
                format!("{failed}, and there is no version to go back to: {error}"),
            ),
        };
        RolledBack {
            from: from.number(),
            to,
            of: route.stamp.clone(),
            at: self.clock.now(),
            trial,
            reason,
        }
    }
}
