//! What came of a shadow's runs, summed up.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use shardmill_core::mapping::Judgement;
use shardmill_core::{Batch, UnixMillis};

use super::Shown;
use super::compare::{Apart, KINDS, Side};
use crate::functions::Loaded;
use crate::mapping::differences::shown as shortened;

/// Differences of each kind that are kept: the first ones.
const KEPT_OF_A_KIND: usize = 10;
/// Batches whose ratios of fuel are kept: the last ones.
const KEPT_RATIOS: usize = 1_024;
/// Pairs of versions that are told apart; later ones are not counted by pair.
const KEPT_PAIRS: usize = 20;
/// Bytes of a problem's text that are kept.
const MAX_PROBLEM_BYTES: usize = 512;

/// Why a batch was not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    QueueFull,
    Fuel,
    NoRoom,
    TooLarge,
    Unavailable,
    Stopped,
}

/// Batches that were not compared, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DroppedBatches {
    /// The shadow was slower: 64 batches, or 64 MiB of them, waited.
    pub queue_full: u64,
    /// It had burnt its fuel of the second.
    pub fuel: u64,
    /// The host had no room for it, or attempts of the tenant waited for room.
    pub no_room: u64,
    /// The batch is larger than its version takes.
    pub too_large: u64,
    /// Its version could not be run: see `problem`.
    pub unavailable: u64,
    /// The mapping was changed or stopped meanwhile.
    pub stopped: u64,
}

impl DroppedBatches {
    pub(super) fn add(&mut self, why: Dropped, batches: u64) {
        *match why {
            Dropped::QueueFull => &mut self.queue_full,
            Dropped::Fuel => &mut self.fuel,
            Dropped::NoRoom => &mut self.no_room,
            Dropped::TooLarge => &mut self.too_large,
            Dropped::Unavailable => &mut self.unavailable,
            Dropped::Stopped => &mut self.stopped,
        } += batches;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Self {
            queue_full,
            fuel,
            no_room,
            too_large,
            unavailable,
            stopped,
        } = self;
        queue_full + fuel + no_room + too_large + unavailable + stopped
    }
}

/// How a shadow compares with the mapping's own version.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShadowReport {
    /// The mapping.
    pub mapping: String,
    /// What runs beside.
    pub function: String,
    /// Share of the batches that it is shown, percent.
    pub percent: u32,
    /// Fuel that it may burn, units/s.
    pub fuel_per_second: u64,
    /// Since when this is counted: the host's start, or the last change of the shadow's settings.
    pub since: UnixMillis,
    /// Why it does not run, if so.
    pub problem: Option<ShadowProblem>,
    /// Batches that it was shown: compared, dropped, waiting, or running now.
    pub shown: u64,
    /// Batches that wait for it.
    pub waiting: u64,
    /// Batches that were not compared.
    pub dropped: DroppedBatches,
    /// Batches that were compared: equal, different, or uncertain.
    pub compared: u64,
    /// Batches of which nothing differed.
    pub equal: u64,
    /// Batches of which something differed.
    pub different: u64,
    /// Batches for which the shadow read keyed state that may have changed since the mapping's own
    /// version ran: what differs may be due to that, and what does not, too.
    pub uncertain: u64,
    /// Batches that failed with the shadow alone, in whole or in part.
    pub failed_only_in_shadow: u64,
    /// Batches that failed with the mapping's own version alone.
    pub failed_only_in_primary: u64,
    /// Records of the batches that were compared.
    pub records: u64,
    /// The mapping's own version on those batches.
    pub primary: ShadowSide,
    /// The shadow on those batches.
    pub shadow: ShadowSide,
    /// The shadow's fuel for each unit of the other's, over the last 1,024 batches that failed with
    /// neither. The median.
    pub fuel_ratio_p50: Option<f64>,
    /// The same; 99 of 100 batches have no higher one.
    pub fuel_ratio_p99: Option<f64>,
    /// Batches by kind of difference.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Which versions were compared: the first 20 pairs.
    pub versions: Vec<VersionPair>,
    /// The first ten differences of each kind.
    pub differences: Vec<ShadowDifference>,
}

/// What one version used, and how often it failed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ShadowSide {
    /// Batches that failed, in whole or in part.
    pub failed: u64,
    /// Fuel, units.
    pub fuel: u64,
    /// Fuel for each record, units.
    pub fuel_per_record: u64,
    /// Time in the handler, microseconds.
    pub duration_micros: u64,
    /// Highest memory of an invocation, bytes.
    pub memory_max_bytes: u64,
}

/// Why a shadow does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowProblem {
    /// When.
    pub at: UnixMillis,
    /// Why.
    pub message: String,
}

/// Two versions that were compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionPair {
    /// The mapping's own: `FUNCTION:VERSION`.
    pub primary: String,
    /// SHA-256 of its module.
    pub primary_digest: String,
    /// The shadow.
    pub shadow: String,
    /// SHA-256 of its module.
    pub shadow_digest: String,
    /// Batches.
    pub compared: u64,
    /// Those among them of which something differed.
    pub different: u64,
    /// Those among them that are uncertain.
    pub uncertain: u64,
}

/// Something that the two did otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowDifference {
    /// `outcome`, `error`, `records`, `answer`, `emits`, `counters` or `state`.
    pub what: &'static str,
    /// The shard.
    pub shard: String,
    /// The record that it is about, or the batch's first; empty without records.
    pub sequence_number: String,
    /// That record's partition key, at most 120 characters.
    pub partition_key: String,
    /// Request id of the batch.
    pub request_id: String,
    /// Whether the shadow read keyed state that may have changed since.
    pub uncertain: bool,
    /// What the mapping's own version did.
    pub primary: String,
    /// What the shadow did.
    pub shadow: String,
}

/// A shadow in short.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShadowFigures {
    /// What runs beside.
    pub function: String,
    /// See [`ShadowReport`].
    pub compared: u64,
    /// See [`ShadowReport`].
    pub different: u64,
    /// See [`ShadowReport`].
    pub uncertain: u64,
    /// See [`ShadowReport`].
    pub failed_only_in_shadow: u64,
    /// See [`ShadowReport`].
    pub failed_only_in_primary: u64,
    /// All batches that were not compared.
    pub dropped: u64,
    /// The shadow's fuel on the batches that were compared.
    pub fuel: u64,
    /// The other's.
    pub primary_fuel: u64,
}

/// A batch that ran on both.
pub(super) struct Compared<'a> {
    pub(super) shown: &'a Shown,
    pub(super) loaded: &'a Loaded,
    pub(super) primary: &'a Side,
    pub(super) shadow: &'a Side,
    pub(super) apart: Vec<Apart>,
    pub(super) uncertain: bool,
}

/// What is added up.
pub(super) struct Sums {
    pub(super) shown: u64,
    pub(super) dropped: DroppedBatches,
    report: ShadowReport,
    ratios: VecDeque<f64>,
}

impl Sums {
    pub(super) fn new(now: UnixMillis) -> Self {
        let report = ShadowReport {
            since: now,
            ..ShadowReport::default()
        };
        Self {
            shown: 0,
            dropped: DroppedBatches::default(),
            report,
            ratios: VecDeque::new(),
        }
    }

    /// Says why the shadow does not run; `since` the same cause lasts, the first time stays.
    pub(super) fn note_problem(&mut self, at: UnixMillis, message: &str) {
        let end = message.floor_char_boundary(MAX_PROBLEM_BYTES);
        let message = &message[..end];
        let known = self.report.problem.as_ref();
        if known.is_none_or(|known| known.message != message) {
            let message = message.to_owned();
            self.report.problem = Some(ShadowProblem { at, message });
        }
    }

    pub(super) fn no_problem(&mut self) {
        self.report.problem = None;
    }

    pub(super) fn add(&mut self, compared: Compared<'_>) {
        let Compared {
            shown,
            primary,
            shadow,
            uncertain,
            ..
        } = compared;
        let different = !compared.apart.is_empty();
        let report = &mut self.report;
        report.compared += 1;
        *match (uncertain, different) {
            (true, _) => &mut report.uncertain,
            (false, true) => &mut report.different,
            (false, false) => &mut report.equal,
        } += 1;
        report.records += shown.job.batch.len() as u64;
        match (primary.failed(), shadow.failed()) {
            (false, true) => report.failed_only_in_shadow += 1,
            (true, false) => report.failed_only_in_primary += 1,
            (true, true) | (false, false) => {}
        }
        report.primary.add(primary);
        report.shadow.add(shadow);
        let both_done = [primary, shadow]
            .iter()
            .all(|side| side.judgement == Judgement::Success);
        if both_done && primary.usage.fuel > 0 {
            if self.ratios.len() == KEPT_RATIOS {
                self.ratios.pop_front();
            }
            let ratio = shadow.usage.fuel as f64 / primary.usage.fuel as f64;
            self.ratios.push_back(ratio);
        }
        report.count_pair(&compared, different);
        for apart in compared.apart {
            *report.kinds.entry(apart.what).or_default() += 1;
            let kept = report.differences.iter().filter(|d| d.what == apart.what);
            if kept.count() < KEPT_OF_A_KIND {
                let difference = difference(shown, apart, uncertain);
                report.differences.push(difference);
            }
        }
    }

    pub(super) fn report(&self) -> ShadowReport {
        let mut report = self.report.clone();
        (report.shown, report.dropped) = (self.shown, self.dropped);
        for side in [&mut report.primary, &mut report.shadow] {
            side.fuel_per_record = side.fuel.checked_div(report.records).unwrap_or(0);
        }
        let mut ratios: Vec<f64> = self.ratios.iter().copied().collect();
        ratios.sort_by(f64::total_cmp);
        report.fuel_ratio_p50 = quantile(&ratios, 50);
        report.fuel_ratio_p99 = quantile(&ratios, 99);
        for kind in KINDS {
            report.kinds.entry(kind).or_default();
        }
        report
    }

    pub(super) fn figures(&self, function: String) -> ShadowFigures {
        let report = &self.report;
        ShadowFigures {
            function,
            compared: report.compared,
            different: report.different,
            uncertain: report.uncertain,
            failed_only_in_shadow: report.failed_only_in_shadow,
            failed_only_in_primary: report.failed_only_in_primary,
            dropped: self.dropped.total(),
            fuel: report.shadow.fuel,
            primary_fuel: report.primary.fuel,
        }
    }
}

impl ShadowSide {
    fn add(&mut self, side: &Side) {
        let usage = &side.usage;
        self.failed += u64::from(side.failed());
        self.fuel = self.fuel.saturating_add(usage.fuel);
        self.duration_micros += usage.duration.as_micros() as u64;
        self.memory_max_bytes = self.memory_max_bytes.max(usage.memory_bytes);
    }
}

impl ShadowReport {
    fn count_pair(&mut self, compared: &Compared<'_>, different: bool) {
        let name = |loaded: &Loaded| {
            let function = &loaded.function;
            format!("{}:{}", function.name, function.label())
        };
        let of = (&compared.shown.loaded, compared.loaded);
        let [primary_digest, shadow_digest] = [of.0.module.digest(), of.1.module.digest()];
        let (primary, shadow) = (name(of.0), name(of.1));
        let known = self.versions.iter().position(|pair| {
            (pair.primary == primary && pair.primary_digest == primary_digest)
                && (pair.shadow == shadow && pair.shadow_digest == shadow_digest)
        });
        let place = match known {
            Some(place) => place,
            None if self.versions.len() == KEPT_PAIRS => return,
            None => {
                self.versions.push(VersionPair {
                    primary,
                    primary_digest: primary_digest.to_owned(),
                    shadow,
                    shadow_digest: shadow_digest.to_owned(),
                    compared: 0,
                    different: 0,
                    uncertain: 0,
                });
                self.versions.len() - 1
            }
        };
        let pair = &mut self.versions[place];
        pair.compared += 1;
        pair.uncertain += u64::from(compared.uncertain);
        pair.different += u64::from(different && !compared.uncertain);
    }
}

fn difference(shown: &Shown, apart: Apart, uncertain: bool) -> ShadowDifference {
    let batch: &Batch = &shown.job.batch;
    let record = apart.record.and_then(|index| batch.get(index as usize));
    let record = record.or_else(|| batch.get(0));
    let number = record.as_ref().map(|r| r.sequence_number().to_string());
    let key = record.map(|r| shortened(r.parts.key.as_bytes()));
    ShadowDifference {
        what: apart.what,
        shard: shown.shard.to_string(),
        sequence_number: number.unwrap_or_default(),
        partition_key: key.unwrap_or_default(),
        request_id: shown.job.part.request_id.clone(),
        uncertain,
        primary: apart.primary,
        shadow: apart.shadow,
    }
}

/// The smallest of `sorted` that `percent` of them do not pass.
fn quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        for (values, p50, p99) in [
            (&[][..], None, None),
            (&[2.0][..], Some(2.0), Some(2.0)),
            (&[1.0, 3.0][..], Some(1.0), Some(3.0)),
            (&hundred[..], Some(50.0), Some(99.0)),
        ] {
            assert_eq!((quantile(values, 50), quantile(values, 99)), (p50, p99));
        }
    }

    #[test]
    fn a_problem_keeps_the_time_at_which_it_began() {
        let mut sums = Sums::new(UnixMillis(1));
        for (at, message) in [(2, "gone"), (3, "gone"), (4, "gone"), (5, "broken")] {
            sums.note_problem(UnixMillis(at), message);
            let problem = sums.report().problem.unwrap();
            let since = if message == "gone" { 2 } else { 5 };
            assert_eq!(
                (problem.at, problem.message.as_str()),
                (UnixMillis(since), message)
            );
        }
        sums.no_problem();
        assert_eq!(sums.report().problem, None);
    }
}
