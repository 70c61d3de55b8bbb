//! What a poller's lanes do next: read on, form a batch, wait, or end.

use std::sync::Arc;
use std::time::Duration;

use shardmill_core::event::{EMPTY_EVENT_BYTES, EventSource, EventWindow};
use shardmill_core::limits::MAX_EVENT_BYTES;
use shardmill_core::mapping::{
    self, Intake, Judgement, MAX_WINDOW_STATE_BYTES, OnExhausted, Part, Paused, Position, Sorted,
    Span, WindowStep, WindowView, Work, window_end, window_step,
};
use shardmill_core::{Batch, RecordRef, Scope, UnixMillis};

use super::attempt::Job;
use super::{End, FOREVER, PROGRESS_DELAY, Poller, Trouble, Wait, Wakes};
use crate::functions::Ready;
use crate::mapping::source::Limit;

/// Bytes that a packed record takes beside its key and data.
const PACKED_OVERHEAD_BYTES: usize = shardmill_core::abi::INDEX_ENTRY_BYTES;

/// Bytes of a packed batch when what is given up is parked: one transaction holds its records
/// twice then, in the failure entry and in the side log.
pub(in crate::mapping) const MAX_PARKABLE_BYTES: usize = 16 << 20;

/// Reads of the store before running batches are looked after again.
const READS_PER_TURN: usize = 16;

/// What a free lane has to do.
enum Due {
    /// Run this batch.
    Now(Box<Job>),
    /// Nothing before this instant.
    At(UnixMillis),
}

impl Due {
    fn now(job: Job) -> Self {
        Self::Now(Box::new(job))
    }
}

impl Poller {
    /// One turn: begins whatever can begin, and says what to wait for.
    pub(super) async fn turn(&mut self, wakes: &mut Wakes) -> Result<Wait, Trouble> {
        let now = self.inner.clock.now();
        if now < self.rest_until {
            return Ok(Wait {
                until: self.rest_until,
                records: false,
            });
        }
        if self.cursor.paused.is_some() {
            return self.pause_when_idle().await;
        }
        // A closed shard takes no records any more, so this order misses none.
        wakes.streams.borrow_and_update();
        let closed = self.source.is_closed();
        let end = Position::of(*wakes.appended.borrow_and_update());
        if !closed && self.has_nothing_to_do(end) {
            // Least of all to load a module that may not be needed for days.
            self.measured = None;
            return Ok(Wait {
                until: FOREVER,
                records: true,
            });
        }
        let Some(ready) = self.load_function().await? else {
            return self.pause_when_idle().await;
        };
        // A batch is as large as what is there allows; a lane with rare keys looks far.
        for _ in 0..READS_PER_TURN {
            if self.wants(end).is_none() {
                break;
            }
            self.read_on(&ready, end).await?;
        }
        let wait = self.begin(&ready, end, closed).await?;
        if self.cursor.paused.is_some() {
            return self.pause_when_idle().await;
        }
        if self.is_finished(end, closed) {
            self.save_progress().await?;
            return Err(Trouble::Ended(End::Finished));
        }
        let hungry = self.wants(end).is_some();
        let mut lanes = 0..self.lanes.count();
        Ok(Wait {
            // Whoever stops or changes the mapping, and batches that run, are looked after
            // between two reads.
            until: if hungry { now } else { wait },
            records: lanes.any(|lane| self.lanes.work(lane) == Work::Idle),
        })
    }

    /// Whether every record is delivered, and nothing waits or is open.
    fn has_nothing_to_do(&self, end: Position) -> bool {
        self.lanes.has_read(end)
            && !self.lanes.is_busy()
            && !self.lanes.has_parked()
            && !self.lanes.is_ahead(&self.cursor)
            && self.cursor.has_no_parts()
            && self.cursor.window.is_none()
            && self.meeting().is_none()
    }

    async fn pause_when_idle(&mut self) -> Result<Wait, Trouble> {
        if self.running.is_empty() {
            let reason = self.cursor.paused.as_ref().map(|p| p.reason.clone());
            let end = self.stand_still(&reason.unwrap_or_default()).await;
            return Err(Trouble::Ended(end));
        }
        Ok(Wait {
            until: FOREVER,
            records: false,
        })
    }

    /// The versions of now. What was gathered for another way of calling them is measured again.
    /// `None`: none may run, and the shard is paused.
    async fn load_function(&mut self) -> Result<Option<Arc<Ready>>, Trouble> {
        let running = self.inner.running(&self.mapping);
        let running = running.map_err(Trouble::Function)?;
        let (scope, route) = (&self.mapping.scope, &running.route);
        let ready = self.inner.functions.ready(scope, route).await;
        let ready = Arc::new(ready.map_err(Trouble::Function)?);
        if let Some((reason, version)) = running.stands_still {
            let paused = Paused { reason, version };
            self.pause_after_roll_back(&ready, paused).await?;
            return Ok(None);
        }
        let weighs = |r: &Ready| (r.takes_json(), r.batch_bytes());
        if self
            .measured
            .as_ref()
            .is_some_and(|m| weighs(m) != weighs(&ready))
        {
            for lane in 0..self.lanes.count() {
                if let Some(job) = self.held[lane].take() {
                    self.lanes.give_back(lane, job.part.span.from);
                }
            }
            self.lanes.forget();
        }
        self.measured = Some(Arc::clone(&ready));
        Ok(Some(ready))
    }

    /// Pauses the shard with what it has gathered: the mapping cannot go back to an earlier
    /// version.
    async fn pause_after_roll_back(
        &mut self,
        ready: &Ready,
        paused: Paused,
    ) -> Result<(), Trouble> {
        let at = self.cursor.low();
        let job = Job::new(
            Part::fresh(Span { from: at, to: at }, String::new()),
            Batch::default(),
        );
        let mut cursor = self.cursor.clone();
        cursor.paused = Some(paused);
        let change = self.without_attempt(&job, cursor, &ready.first);
        self.commit(change, None).await.map(|_| ())
    }

    /// How records look to a function that takes Lambda's JSON event.
    pub(super) fn event_source(&self, takes_json: bool) -> Option<EventSource> {
        let stream = self.mapping.stream.as_str();
        takes_json.then(|| EventSource::new(&self.mapping.scope, stream))
    }

    /// Where lanes meet before their number changes.
    fn meeting(&self) -> Option<Position> {
        (self.cursor.lanes.len() != self.wanted_lanes()).then(|| self.cursor.high())
    }

    fn wants(&self, end: Position) -> Option<(Position, usize)> {
        self.lanes.wants(&self.mapping.policy, self.meeting(), end)
    }

    /// Reads once for the lanes that have room.
    async fn read_on(&mut self, ready: &Ready, end: Position) -> Result<(), Trouble> {
        let Some((from, room)) = self.wants(end) else {
            return Ok(());
        };
        let blocks = self.source.read(from, room).await?;
        let first = match blocks.first() {
            Some(block) => block.position(0),
            None => self.source.floor().await?,
        };
        if first > from && !self.skip_trimmed(first, &ready.first).await? {
            // Nobody knows of the gap yet, so nothing behind it is taken.
            return Ok(());
        }
        let json = self.event_source(ready.takes_json());
        let budget = self.batch_budget(json.as_ref(), ready);
        let size = |record: &RecordRef<'_>| size_in(json.as_ref(), record);
        let parked = self.parked.names();
        let filters = &self.filters;
        let mut sort = |record: &RecordRef<'_>| match filters.sort(record) {
            Sorted::Deliver if parked.contains(record.parts.key) => Sorted::Park,
            sorted => sorted,
        };
        let plain = filters.is_empty() && parked.is_empty();
        let mut intake = Intake {
            policy: &self.mapping.policy,
            budget,
            size: &size,
            until: self.meeting(),
            windows_closed_to: self.cursor.windows_closed_to,
            window_open_to: self.cursor.window.as_ref().map_or(UnixMillis(0), |w| w.end),
            sort: if plain { None } else { Some(&mut sort) },
        };
        for block in &blocks {
            self.lanes.offer(block, from, &mut intake);
        }
        self.counts.count_first_read(self.lanes.take_first_read());
        Ok(())
    }

    /// Bytes that the records of a batch may take.
    fn batch_budget(&self, json: Option<&EventSource>, ready: &Ready) -> usize {
        let own = ready.batch_bytes();
        let Some(source) = json else {
            return match self.mapping.policy.on_exhausted {
                OnExhausted::Park => own.min(MAX_PARKABLE_BYTES),
                OnExhausted::Discard | OnExhausted::Pause => own,
            };
        };
        // A record takes fewer bytes in packed form.
        let budget = own.min(MAX_EVENT_BYTES - EMPTY_EVENT_BYTES);
        if self.mapping.policy.window().is_none() && self.cursor.window.is_none() {
            return budget;
        }
        // The state may grow until the batch is sent, and the window may be another one.
        let window = EventWindow {
            state: String::new(),
            ..self.event_window(self.inner.clock.now(), false)
        };
        let members = source.window_bytes(self.source.shard.shard, &window);
        budget.saturating_sub(members + MAX_WINDOW_STATE_BYTES)
    }

    /// Forms batches for the lanes that are free and runs what can run. Gives the instant at
    /// which there is more to do.
    async fn begin(
        &mut self,
        ready: &Arc<Ready>,
        end: Position,
        closed: bool,
    ) -> Result<UnixMillis, Trouble> {
        let mut wake = FOREVER;
        if self.lanes.has_parked() {
            // Before a batch is taken from behind them.
            self.save_progress().await?;
            if self.cursor.paused.is_some() {
                return Ok(wake);
            }
        }
        for lane in 0..self.lanes.count() {
            loop {
                if self.held[lane].is_none() && self.lanes.work(lane) == Work::Idle {
                    match self.next_job(lane, (end, closed), ready).await? {
                        Due::Now(job) => self.held[lane] = Some(*job),
                        Due::At(at) => wake = wake.min(at),
                    }
                }
                let Some(job) = self.held[lane].take() else {
                    break;
                };
                let from = job.part.span.from;
                match self.try_run(lane, job, ready).await {
                    Ok(Ok(())) if self.cursor.paused.is_some() => return Ok(wake),
                    Ok(Ok(())) => {}
                    Ok(Err(at)) => {
                        wake = wake.min(at);
                        break;
                    }
                    Err(trouble) => {
                        self.lanes.give_back(lane, from);
                        return Err(trouble);
                    }
                }
            }
        }
        self.save_when_due(wake).await
    }

    /// Runs a batch, or gives up what of it no attempt can deliver. `Err`: it waits until then.
    async fn try_run(
        &mut self,
        lane: usize,
        job: Job,
        ready: &Ready,
    ) -> Result<Result<(), UnixMillis>, Trouble> {
        let loaded = ready.choose(&job.part.request_id);
        let Some(job) = self.give_up_undeliverable(lane, job, loaded).await? else {
            return Ok(Ok(()));
        };
        if let Err(at) = self.may_run(&job) {
            // It may grow too old meanwhile.
            let oldest = job.batch.get(0).map(|record| record.arrival);
            let expiry = oldest.and_then(|arrival| self.too_old_at(arrival));
            self.held[lane] = Some(job);
            return Ok(Err(expiry.map_or(at, |expiry| expiry.min(at))));
        }
        match self.after_deaths(lane, job, loaded).await? {
            Some(job) => {
                let beside = ready.beside(loaded.function.number());
                self.note_version(&job, loaded, beside);
                self.run_job(lane, job, loaded);
            }
            // The breaker may have let it through as the one that it tries.
            None => self.note_breaker(&Judgement::Throttled(String::new())),
        }
        Ok(Ok(()))
    }

    /// Whether a batch may run now; the instant when to ask again.
    fn may_run(&mut self, job: &Job) -> Result<(), UnixMillis> {
        let now = self.inner.clock.now();
        // A part may have been looked at early, to see whether it has grown too old.
        let not_before = job.not_before.max(job.part.not_before);
        if now < not_before {
            return Err(not_before);
        }
        if self.is_full() {
            self.report(&Trouble::Full);
            return Err(now.plus(super::TROUBLE_WAIT));
        }
        if let Some(bytes) = self.lacks_room() {
            self.report(&Trouble::NoRoom(bytes));
            return Err(now.plus(super::TROUBLE_WAIT));
        }
        self.metrics.admit(&self.mapping, now)
    }

    /// The batch that a free lane runs next: its first part, the final invocation of its window,
    /// or what it has gathered.
    async fn next_job(
        &mut self,
        lane: usize,
        (end, closed): (Position, bool),
        ready: &Ready,
    ) -> Result<Due, Trouble> {
        let now = self.inner.clock.now();
        let first = self.cursor.lanes[lane].parts.first().cloned();
        let is_final = |part: &Part| part.span.is_empty();
        if self.cursor.window.as_ref().is_some_and(|w| w.ended_early)
            && !first.as_ref().is_some_and(is_final)
        {
            // The parts that wait belong to the window that begins anew.
            return Ok(Due::now(self.final_job(lane)));
        }
        if let Some(part) = first {
            let due = part.not_before.min(self.expiry_of(lane, &part).await?);
            if now < due {
                return Ok(Due::At(due));
            }
            return self.part_job(lane, part, ready).await.map(Due::now);
        }
        let next = self.lanes.next(lane);
        let met = self.meeting().is_some_and(|until| next >= until);
        let at_end = met || (closed && next >= end);
        let mut window = None;
        let mut window_end = FOREVER;
        if self.cursor.window.is_some() && self.window_length().is_none() {
            // The mapping has no windows any more.
            return Ok(Due::now(self.final_job(lane)));
        }
        if let Some(length) = self.window_length() {
            let view = WindowView {
                open: self.cursor.window.as_ref(),
                closed_to: self.cursor.windows_closed_to,
                first: self.lanes.first_arrival(lane),
                at_end: closed && next >= end,
                length,
            };
            match window_step(view, now) {
                WindowStep::Idle => {}
                WindowStep::CloseAt(at) => window_end = at,
                WindowStep::Close => return Ok(Due::now(self.final_job(lane))),
                WindowStep::Records(start) => {
                    let event = self.event_window(start, false);
                    window_end = event.end;
                    window = Some(event);
                }
            }
        }
        let over = now >= window_end && window.is_some();
        match self
            .lanes
            .ready(lane, &self.mapping.policy, at_end || over, now)
        {
            mapping::Ready::Now => {
                let (span, batch) = self.lanes.take(lane);
                let part = Part::fresh(span, self.inner.request_id(&self.mapping.scope));
                Ok(Due::now(Job {
                    window,
                    ..Job::new(part, batch)
                }))
            }
            mapping::Ready::At(at) => Ok(Due::At(at.min(window_end))),
            mapping::Ready::Empty => Ok(Due::At(window_end)),
        }
    }

    /// A part that waits, read again.
    async fn part_job(&mut self, lane: usize, part: Part, ready: &Ready) -> Result<Job, Trouble> {
        self.lanes.take_part(lane);
        if part.span.is_empty() {
            let window = self.final_window();
            return Ok(Job {
                window,
                ..Job::new(part, Batch::default())
            });
        }
        let lanes = (lane, self.lanes.count());
        let json = self.event_source(ready.takes_json());
        let size = |record: &RecordRef<'_>| size_in(json.as_ref(), record);
        let limit = Limit {
            records: self.mapping.policy.batch_size as usize,
            bytes: self.batch_budget(json.as_ref(), ready),
            size: &size,
        };
        let read = {
            let parked = self.parked.names();
            let filters = &self.filters;
            let mut sort = |record: &RecordRef<'_>| match filters.sort(record) {
                Sorted::Deliver if parked.contains(record.parts.key) => Sorted::Park,
                sorted => sorted,
            };
            self.source.read_part(&part, lanes, limit, &mut sort).await
        };
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                self.lanes.free(lane, true, self.inner.clock.now());
                return Err(error.into());
            }
        };
        let mut job = Job::new(part, read.batch);
        (job.lost, job.parked, job.more) = (read.lost, read.parked, read.more);
        if self.window_length().is_some() {
            let first = job.batch.get(0).map(|r| r.arrival);
            let start = first.map(|first| self.window_of(first));
            job.window = start.map(|start| self.event_window(start, false));
        }
        Ok(job)
    }

    /// The final invocation of the open window.
    fn final_job(&mut self, lane: usize) -> Job {
        let at = self.cursor.lanes[lane].mark;
        let part = Part::fresh(
            Span { from: at, to: at },
            self.inner.request_id(&self.mapping.scope),
        );
        let window = self.final_window();
        self.lanes.take_part(lane);
        Job {
            window,
            ..Job::new(part, Batch::default())
        }
    }

    fn final_window(&self) -> Option<EventWindow> {
        let open = self.cursor.window.as_ref()?;
        Some(self.event_window(open.start, true))
    }

    /// The length of the mapping's windows. None for lanes that are still to meet: they deliver
    /// what was begun before there were windows.
    fn window_length(&self) -> Option<Duration> {
        let length = self.mapping.policy.window();
        length.filter(|_| self.cursor.lanes.len() == 1)
    }

    fn window_of(&self, arrival: UnixMillis) -> UnixMillis {
        match &self.cursor.window {
            Some(open) => open.start,
            None => shardmill_core::mapping::window_start(
                arrival,
                self.mapping.policy.tumbling_window,
                self.cursor.windows_closed_to,
            ),
        }
    }

    fn event_window(&self, start: UnixMillis, is_final: bool) -> EventWindow {
        let open = self.cursor.window.as_ref().filter(|w| w.start == start);
        EventWindow {
            start,
            end: match open {
                Some(open) => open.end,
                None => window_end(start, self.mapping.policy.tumbling_window),
            },
            state: open.map_or_else(|| "{}".into(), |w| w.state.clone()),
            is_final,
            ended_early: open.is_some_and(|w| w.ended_early),
        }
    }

    /// When the oldest record of a lane's first part passes the mapping's age limit.
    async fn expiry_of(&mut self, lane: usize, part: &Part) -> Result<UnixMillis, Trouble> {
        if self.mapping.policy.maximum_record_age.is_none() {
            return Ok(FOREVER);
        }
        let from = part.span.from;
        if let Some((at, expiry)) = self.expiry[lane]
            && at == from
        {
            return Ok(expiry);
        }
        let arrival = match &self.cursor.window {
            Some(open) if part.span.is_empty() => Some(open.end),
            _ => self
                .source
                .read(from, 1)
                .await?
                .first()
                .map(|b| b.arrival()),
        };
        let expiry = arrival.and_then(|arrival| self.too_old_at(arrival));
        let expiry = expiry.unwrap_or(FOREVER);
        self.expiry[lane] = Some((from, expiry));
        Ok(expiry)
    }

    /// When what arrived at `arrival` passes the mapping's age limit.
    fn too_old_at(&self, arrival: UnixMillis) -> Option<UnixMillis> {
        let limit = self.mapping.policy.maximum_record_age?;
        Some(arrival.plus(limit + Duration::from_millis(1)))
    }

    fn is_finished(&self, end: Position, closed: bool) -> bool {
        closed
            && !self.lanes.is_busy()
            && self.lanes.has_read(end)
            && self.cursor.has_no_parts()
            && self.cursor.window.is_none()
    }

    /// Commits progress that is in memory when it is old enough. Lanes that have met change their
    /// number.
    async fn save_when_due(&mut self, wake: UnixMillis) -> Result<UnixMillis, Trouble> {
        let now = self.inner.clock.now();
        let meeting = self.meeting().is_some();
        let parked = self.lanes.has_parked();
        if !self.lanes.is_ahead(&self.cursor) && !parked {
            self.unsaved = None;
            let met = meeting && !self.lanes.is_busy();
            if met && self.cursor.relane(self.wanted_lanes()) {
                self.set_lanes();
                self.save_cursor().await?;
                return Ok(now);
            }
            return Ok(wake);
        }
        let due = self.unsaved.get_or_insert(now).plus(PROGRESS_DELAY);
        if now < due && !meeting && !parked {
            return Ok(wake.min(due));
        }
        self.save_progress().await?;
        Ok(now)
    }
}

/// Bytes that a record takes in a batch.
fn size_in(json: Option<&EventSource>, record: &RecordRef<'_>) -> usize {
    match json {
        Some(source) => source.record_bytes(record),
        None => record.payload_bytes() + PACKED_OVERHEAD_BYTES,
    }
}

impl crate::mapping::resource::Inner {
    pub(in crate::mapping) fn request_id(&self, scope: &Scope) -> String {
        self.ids.next(scope.tenant)
    }
}
