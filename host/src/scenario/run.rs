//! Runs a scenario: its steps one after the other, its expectations where they stand. For several
//! tenants on one host each step is done by all of them at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use shardmill_core::{HashKey, Sandbox, ShardId, Stream, TenantId, reshard};

use super::action::{Action, NewRecord, Step};
use super::check::Scenario;
use super::facts::Facts;
use super::machine::Machine;
use super::report::{Figures, Mismatch, Report};
use super::simulated::{PATIENCE, Simulated};
use super::span;
use super::world::World;

/// What came of a run for one tenant.
#[derive(Default)]
pub(super) struct Played {
    pub(super) mismatches: Vec<Mismatch>,
    pub(super) figures: Figures,
    /// Those at the end; none where they could not be had.
    pub(super) facts: Option<Facts>,
}

impl Scenario {
    /// Runs it on a clock of its own, which begins at its start and moves on when nothing is left
    /// to do. `sandbox` must not let guests wait (`SandboxConfig::simulated_time`). Blocks the
    /// thread, which must not belong to a runtime.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn run(&self, sandbox: Arc<dyn Sandbox>) -> std::io::Result<Report> {
        let began = tokio::time::Instant::now();
        let tenant = self.manifest.server.scope.tenant;
        let played = self.play(sandbox, &[tenant], false)?;
        let Played {
            mismatches,
            figures,
            ..
        } = played.into_iter().next().unwrap_or_default();
        Ok(Report {
            path: self.path.clone(),
            name: self.name.clone(),
            tenants: 1,
            mismatches,
            figures,
            took: began.elapsed(),
        })
    }

    /// Runs it for these tenants at once on one host; what came of it for each, in their order.
    /// `among_others` keeps all to the same ticks, however many there are.
    pub(super) fn play(
        &self,
        sandbox: Arc<dyn Sandbox>,
        tenants: &[TenantId],
        among_others: bool,
    ) -> std::io::Result<Vec<Played>> {
        self.play_on(Simulated::new(sandbox, PATIENCE), tenants, among_others)
    }

    /// The same. A sandbox that does not answer any more ends the run.
    pub(super) fn play_on(
        &self,
        sandbox: Simulated,
        tenants: &[TenantId],
        among_others: bool,
    ) -> std::io::Result<Vec<Played>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let mut played: Vec<Played> = tenants.iter().map(|_| Played::default()).collect();
        let stuck = sandbox.stuck();
        let acted = self.act(Arc::new(sandbox), (tenants, among_others), &mut played);
        let run = async {
            tokio::select! {
                biased;
                () = stuck => anyhow::bail!(
                    "the sandbox did not answer any more: an invocation waits for what does not \
                     come on simulated time, such as memory or a slot that nobody gives back"
                ),
                acted = acted => acted,
            }
        };
        if let Err(error) = runtime.block_on(Box::pin(run)) {
            for played in &mut played {
                played.fault(self.function_line, "set-up", &error);
            }
        }
        Ok(played)
    }

    async fn act(
        &self,
        sandbox: Arc<Simulated>,
        (tenants, among_others): (&[TenantId], bool),
        played: &mut [Played],
    ) -> anyhow::Result<()> {
        let mut machine = Machine::start(self.start, sandbox).await?;
        let manifests = tenants
            .iter()
            .map(|tenant| self.manifest.of_tenant(*tenant));
        let worlds = manifests.map(|manifest| World::start(&machine, manifest, among_others));
        let worlds: Result<Vec<World>, _> = join_all(worlds).await.into_iter().collect();
        let mut runs: Vec<Run<'_>> = worlds?
            .into_iter()
            .zip(played)
            .map(|(world, played)| Run {
                world,
                played,
                went: true,
            })
            .collect();
        for step in &self.steps {
            if let Some(killed) = step.action.ends_the_host() {
                join_all(runs.iter_mut().map(|run| run.await_step(self, step))).await;
                self.restart(&mut machine, &mut runs, killed).await?;
            }
            join_all(runs.iter_mut().map(|run| run.step(self, step))).await;
        }
        join_all(runs.iter_mut().map(|run| run.end(self))).await;
        machine.stop(true).await;
        Ok(())
    }

    async fn restart(
        &self,
        machine: &mut Machine,
        runs: &mut [Run<'_>],
        killed: bool,
    ) -> anyhow::Result<()> {
        machine.stop(killed).await;
        for run in &mut *runs {
            run.world.note_end().await?;
        }
        machine.start_again().await?;
        for run in runs {
            run.world.go_on(machine);
        }
        Ok(())
    }

    async fn step(&self, world: &mut World, step: &Step) -> anyhow::Result<()> {
        if let Some(at) = step.at
            && step.action.ends_the_host().is_none()
        {
            self.wait_until(world, at).await?;
        }
        match &step.action {
            // The host has been started again for all.
            Action::None | Action::Restart | Action::Kill => {}
            Action::Put { stream, records } => {
                for part in records.chunk_by(|a, b| b.at.is_none() || a.at == b.at) {
                    if let Some(at) = part.first().and_then(|record: &NewRecord| record.at) {
                        self.wait_until(world, at).await?;
                    }
                    world.put(stream, part).await?;
                }
            }
            Action::Wait(span) => world.wait(*span).await?,
            Action::Drain(limit) => return world.drain(*limit).await,
            Action::Pause => world.enable(false).await?,
            Action::Resume => world.enable(true).await?,
            Action::Deploy(wasm) => world.deploy(wasm.clone()).await?,
            Action::Split(stream, shard) => {
                world
                    .reshard(stream, |old, now| {
                        reshard::split(old, *shard, middle(old, *shard), now)
                    })
                    .await?;
            }
            Action::Merge(stream, lower, upper) => {
                world
                    .reshard(stream, |old, now| reshard::merge(old, *lower, *upper, now))
                    .await?;
            }
            Action::Unpark(keys) => world.unpark(keys).await?,
        }
        world.step_over().await;
        Ok(())
    }

    async fn wait_until(&self, world: &mut World, at: Duration) -> anyhow::Result<()> {
        if !world.wait_until(self.start.plus(at)).await? {
            let (at, now) = (span::format(at), span::format(world.elapsed(self.start)));
            anyhow::bail!("at = {at:?} is over: {now} have passed");
        }
        Ok(())
    }
}

/// One tenant's way through the steps.
struct Run<'a> {
    world: World,
    played: &'a mut Played,
    /// What comes after a step that could not be done says nothing.
    went: bool,
}

impl Run<'_> {
    async fn step(&mut self, scenario: &Scenario, step: &Step) {
        if !self.went {
            return;
        }
        let stepped = scenario.step(&mut self.world, step).await;
        self.note(step, stepped);
        if !step.expect.is_empty() {
            let facts = self.world.facts().await;
            self.played.judge(step.line, &step.expect, facts);
        }
    }

    /// Waits for a step's time.
    async fn await_step(&mut self, scenario: &Scenario, step: &Step) {
        if let Some(at) = step.at
            && self.went
        {
            let waited = scenario.wait_until(&mut self.world, at).await;
            self.note(step, waited);
        }
    }

    fn note(&mut self, step: &Step, done: anyhow::Result<()>) {
        if let Err(error) = done {
            self.played.fault(step.line, &step.label, &error);
            self.went = false;
        }
    }

    async fn end(&mut self, scenario: &Scenario) {
        let facts = self.world.facts().await;
        if let Ok(facts) = &facts {
            self.played.figures = Figures::of(facts, self.world.elapsed(scenario.start));
            self.played.facts = Some(facts.clone());
        }
        if self.went {
            let line = scenario.expect.first().map_or(1, |first| first.line);
            self.played.judge(line, &scenario.expect, facts);
        }
    }
}

impl Action {
    /// Whether it ends the host and starts another one, and whether that kills it.
    fn ends_the_host(&self) -> Option<bool> {
        match self {
            Self::Restart => Some(false),
            Self::Kill => Some(true),
            _ => None,
        }
    }
}

/// Where the upper half of a shard begins; anywhere for one that is not there.
fn middle(stream: &Stream, shard: ShardId) -> HashKey {
    let range = stream.shard(shard).map(|shard| shard.range);
    range.map_or(HashKey(0), |range| {
        HashKey(range.start.0 + (range.end.0 - range.start.0) / 2 + 1)
    })
}

impl Played {
    /// Notes that something could not be done.
    fn fault(&mut self, line: usize, place: &str, error: &anyhow::Error) {
        self.mismatches.push(Mismatch {
            line,
            expectation: place.into(),
            expected: "it can be done".into(),
            found: format!("{error:#}"),
        });
    }

    fn judge(
        &mut self,
        line: usize,
        expectations: &[super::expect::Expectation],
        facts: anyhow::Result<Facts>,
    ) {
        match facts {
            Ok(facts) => {
                let wrong = expectations.iter().filter_map(|one| one.judge(&facts));
                self.mismatches.extend(wrong);
            }
            Err(error) => self.fault(line, "facts", &error),
        }
    }
}
