//! Runs a scenario: its steps one after the other, its expectations where they stand.

use std::sync::Arc;
use std::time::Duration;

use shardmill_core::{HashKey, Sandbox, ShardId, Stream, reshard};

use super::action::{Action, NewRecord, Step};
use super::check::Scenario;
use super::facts::Facts;
use super::report::{Figures, Mismatch, Report};
use super::simulated::Simulated;
use super::span;
use super::world::World;

impl Scenario {
    /// Runs it on a clock of its own, which begins at its start and moves on when nothing is left
    /// to do. `sandbox` must not let guests wait (`SandboxConfig::simulated_time`). Blocks the
    /// thread, which must not belong to a runtime.
    ///
    /// # Errors
    /// The system has no room for a runtime.
    pub fn run(&self, sandbox: Arc<dyn Sandbox>) -> std::io::Result<Report> {
        let began = tokio::time::Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let mut report = Report {
            path: self.path.clone(),
            name: self.name.clone(),
            mismatches: Vec::new(),
            figures: Figures::default(),
            took: Duration::ZERO,
        };
        runtime.block_on(Box::pin(self.act(sandbox, &mut report)));
        drop(runtime);
        report.took = began.elapsed();
        Ok(report)
    }

    async fn act(&self, sandbox: Arc<dyn Sandbox>, report: &mut Report) {
        let sandbox = Arc::new(Simulated::new(sandbox));
        let world = World::start(self.manifest.clone(), self.start, Arc::clone(&sandbox)).await;
        let mut world = match world {
            Ok(world) => world,
            Err(error) => return report.fault(self.function_line, "set-up", &error),
        };
        let mut went = true;
        for step in &self.steps {
            let stepped = self.step(&mut world, step).await;
            went = stepped.is_ok();
            if let Err(error) = stepped {
                report.fault(step.line, &step.label, &error);
            }
            if !step.expect.is_empty() {
                let facts = world.facts().await;
                report.judge(step.line, &step.expect, facts);
            }
            // What comes after a step that could not be done says nothing.
            if !went {
                break;
            }
        }
        let facts = world.facts().await;
        if let Ok(facts) = &facts {
            report.figures = Figures::of(facts, world.elapsed(self.start));
        }
        if went {
            let line = self.expect.first().map_or(1, |first| first.line);
            report.judge(line, &self.expect, facts);
        }
        world.end().await;
    }

    async fn step(&self, world: &mut World, step: &Step) -> anyhow::Result<()> {
        if let Some(at) = step.at {
            self.wait_until(world, at).await?;
        }
        match &step.action {
            Action::None => {}
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
            Action::Restart => world.restart(false).await?,
            Action::Kill => world.restart(true).await?,
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

/// Where the upper half of a shard begins; anywhere for one that is not there.
fn middle(stream: &Stream, shard: ShardId) -> HashKey {
    let range = stream.shard(shard).map(|shard| shard.range);
    range.map_or(HashKey(0), |range| {
        HashKey(range.start.0 + (range.end.0 - range.start.0) / 2 + 1)
    })
}

impl Report {
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
