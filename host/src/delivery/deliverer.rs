//! The task that makes deliveries: it takes up what transactions have written, sends what the
//! schedule names, and keeps what came of it.
//!
//! A delivery is out of the outbox only after it was made. So a crash repeats at most what was
//! under way, under the same id.

use std::sync::Arc;
use std::time::Duration;

use shardmill_core::UnixMillis;
use shardmill_store::{Expect, Key, ReadError, Table, Tx, Urgency, Value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::outbox::{self, Entry, Undeliverable, entry_key};
use super::schedule::{Trouble, Waiting};
use super::send::{Sender, of_store};
use super::{Announced, Delivery, DeliveryError, Inner};
use crate::functions::to_json;

/// Attempts under way at one time, of all accounts.
const CONCURRENCY: usize = 16;

/// Pause before a commit that has not been seen yet is looked for again, at first.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// After this time a transaction that was not seen to be committed is not likely to be: its room
/// is given away.
const NOT_COMMITTED: Duration = Duration::from_secs(60);

/// After this time nobody looks for it any more, before the next start.
const NEVER_COMMITTED: Duration = Duration::from_secs(3600);

/// Wait after an error of the store.
const TROUBLE_WAIT: Duration = Duration::from_secs(1);

/// How long attempts that are under way may take when the host stops; they are repeated later.
const DRAIN: Duration = Duration::from_secs(1);

type Ended = (Waiting, Result<(), Trouble>);

impl Delivery {
    /// Makes deliveries until `stop`. Those that were under way then are made again after the
    /// next start.
    pub async fn run(&self, stop: CancellationToken) {
        let inner = &self.inner;
        let sender = Arc::new(Sender::new(&inner.settings, inner.queues.clone()));
        while let Err(error) = inner.load() {
            tracing::error!(%error, "the outbox cannot be read; trying again");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TROUBLE_WAIT) => {}
            }
        }
        let mut sends: JoinSet<Ended> = JoinSet::new();
        while !stop.is_cancelled() {
            let look_again = inner.take_up();
            while sends.len() < CONCURRENCY
                && let Some(next) = inner.next()
            {
                let (inner, sender) = (Arc::clone(inner), Arc::clone(&sender));
                sends.spawn(async move { inner.attempt(&sender, next).await });
            }
            let full = sends.len() >= CONCURRENCY;
            let wake = inner.state().schedule.wake_at().filter(|_| !full);
            let wake = wake.unwrap_or(UnixMillis(u64::MAX)).min(look_again);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(ended) = sends.join_next() => inner.ended(ended).await,
                () = inner.woken.notified() => {}
                () = inner.sleep_until(wake) => {}
            }
        }
        let drain = async {
            while let Some(ended) = sends.join_next().await {
                inner.ended(ended).await;
            }
        };
        // What is cut off here is made again.
        let _ = tokio::time::timeout(DRAIN, drain).await;
        sends.shutdown().await;
    }
}

/// The pause before a transaction of this age is looked for again.
fn look_again(age: Duration) -> Duration {
    match age {
        age if age < TROUBLE_WAIT => LOOK_AGAIN,
        age if age <= NOT_COMMITTED => TROUBLE_WAIT,
        _ => NOT_COMMITTED,
    }
}

impl Inner {
    /// Takes up what earlier processes have left.
    fn load(&self) -> Result<(), ReadError> {
        let prefix = Key::table_prefix(Table::Outbox);
        let entries = outbox::scan(self.store.as_ref(), &prefix)?;
        let mut state = self.state();
        for (entry, bytes) in entries {
            state.usage.count(&entry.scope, &entry.id, bytes);
            match entry.undeliverable {
                None => state.schedule.add(entry.waiting()),
                Some(_) => state.is_undeliverable(&entry.scope, &entry.id),
            }
        }
        Ok(())
    }

    /// Takes up entries whose transactions are committed. Returns when to look again for others.
    pub(super) fn take_up(&self) -> UnixMillis {
        let now = self.clock.now();
        let announced = std::mem::take(&mut self.state().announced);
        let mut left = Vec::new();
        for mut one in announced {
            if one.look_at > now {
                left.push(one);
                continue;
            }
            let Announced { scope, id, .. } = &one;
            match outbox::find_sized(self.store.as_ref(), scope, id) {
                Ok(Some((entry, bytes))) => {
                    let mut state = self.state();
                    // Its room was given away if it took its time.
                    state.usage.count(scope, id, bytes);
                    state.schedule.add(entry.waiting());
                    continue;
                }
                Ok(None) => {}
                Err(error @ ReadError::Damaged(_)) => {
                    tracing::error!(%error, id, "a delivery is left out");
                    continue;
                }
                Err(error) => tracing::error!(%error, id, "a delivery waits for the disk"),
            }
            let age = now.since(one.at);
            if age > NOT_COMMITTED {
                self.state().usage.free(scope, id);
            }
            if age > NEVER_COMMITTED {
                continue;
            }
            one.look_at = now.plus(look_again(age));
            left.push(one);
        }
        let again = left.iter().map(|one| one.look_at).min();
        self.state().announced.append(&mut left);
        again.unwrap_or(UnixMillis(u64::MAX))
    }

    fn next(&self) -> Option<Waiting> {
        let now = self.clock.now();
        self.state().schedule.next(now)
    }

    async fn sleep_until(&self, at: UnixMillis) {
        if at == UnixMillis(u64::MAX) {
            return std::future::pending().await;
        }
        self.clock.sleep_until(at).await;
    }

    async fn attempt(&self, sender: &Sender, next: Waiting) -> Ended {
        let (scope, id) = (&next.lane.0, &next.id);
        let result = match outbox::find(self.store.as_ref(), scope, id) {
            Ok(Some(entry)) => sender.attempt(self.store.as_ref(), &entry).await,
            // Dropped by a person meanwhile.
            Ok(None) => {
                let mut state = self.state();
                state.usage.free(scope, id);
                return (Waiting { records: 0, ..next }, Ok(()));
            }
            Err(error) => Err(of_store(&error)),
        };
        (next, result)
    }

    async fn ended(&self, ended: Result<Ended, tokio::task::JoinError>) {
        let (delivery, result) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // A panic is a bug. Its lane stays busy until the next start, which is safer
                // than to run a bug again and again.
                tracing::error!(%error, "a delivery died; its destination waits for a restart");
                return;
            }
        };
        let Waiting { lane, id, .. } = &delivery;
        let trouble = match result {
            Ok(()) => {
                let mut state = self.state();
                let (now, chance) = (self.clock.now(), rand::random());
                state.schedule.delivered(&delivery, now, chance);
                state.usage.free(&lane.0, id);
                state.count(&delivery.mapping_id, |figures| {
                    figures.delivered += delivery.records;
                    figures.delivery_problem = None;
                });
                return;
            }
            Err(trouble) => trouble,
        };
        let why = trouble.why.clone();
        tracing::warn!(destination = lane.1, id, why, "a delivery failed");
        let now = self.clock.now();
        let over = {
            let mut state = self.state();
            state.count(&delivery.mapping_id, |figures| {
                figures.delivery_problem = Some(why.clone());
            });
            let chance = rand::random();
            state.schedule.failed(&delivery, &trouble, now, chance)
        };
        for one in over {
            self.give_up(one, &why).await;
        }
    }

    /// Marks a delivery as undeliverable: it stays in the outbox until a person sees to it.
    async fn give_up(&self, delivery: Waiting, why: &str) {
        let (scope, id) = (&delivery.lane.0, &delivery.id);
        match self.mark(&delivery, why).await {
            Ok(()) => {}
            Err(DeliveryError::Read(error @ ReadError::Damaged(_))) => {
                tracing::error!(%error, id, "a delivery is left out");
                return;
            }
            Err(error) => {
                tracing::error!(%error, id, "a delivery could not be marked; it is tried on");
                let at = self.clock.now().plus(TROUBLE_WAIT);
                self.state().schedule.add_at(delivery, at);
                return;
            }
        }
        let (account, destination) = (scope.tenant, &delivery.lane.1);
        tracing::error!(%account, destination, id, why, "a delivery was given up");
        let mut state = self.state();
        state.count(&delivery.mapping_id, |figures| {
            figures.delivery_failures += 1;
        });
    }

    async fn mark(&self, delivery: &Waiting, why: &str) -> Result<(), DeliveryError> {
        let (scope, id) = (&delivery.lane.0, &delivery.id);
        let Some(entry) = outbox::find(self.store.as_ref(), scope, id)? else {
            return Ok(());
        };
        let undeliverable = Undeliverable {
            at: self.clock.now(),
            why: why.into(),
        };
        let entry = Entry {
            undeliverable: Some(undeliverable),
            ..entry
        };
        let key = entry_key(scope, id);
        let tx = Tx {
            // What was dropped meanwhile must not come back.
            expect: vec![Expect::Present(key.clone())],
            writes: vec![(key, Value::Inline(to_json(&entry)))],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        // Before the commit: whoever drops or retries what is marked comes behind this.
        self.state().is_undeliverable(scope, id);
        let committed = self.store.commit(tx).await;
        if let Err(error) = committed {
            self.state().is_tried(scope, id);
            return Err(error.into());
        }
        Ok(())
    }
}
