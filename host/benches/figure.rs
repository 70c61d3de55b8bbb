//! Figures: the median of some samples, with their range, in one unit.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What a figure counts, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// A number without a unit.
    Ratio,
    /// Bytes per second.
    BytesPerSecond,
    /// Records per second.
    RecordsPerSecond,
    /// Seconds, wall clock or CPU; the row's name says which.
    Seconds,
    /// Seconds of CPU for a billion bytes.
    CpuSecondsPerGb,
    /// Bytes.
    Bytes,
    /// Records.
    Records,
}

/// The median of samples, and their range.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) unit: Unit,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) samples: usize,
}

impl Figure {
    /// Of samples in the unit's base (seconds, bytes, records per second). Without samples, NaN.
    pub(crate) fn of(unit: Unit, samples: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Self {
            unit,
            median,
            min: sorted.first().copied().unwrap_or(f64::NAN),
            max: sorted.last().copied().unwrap_or(f64::NAN),
            samples: sorted.len(),
        }
    }

    /// Of spans.
    pub(crate) fn of_spans(spans: impl IntoIterator<Item = Duration>) -> Self {
        Self::of(
            Unit::Seconds,
            spans.into_iter().map(|span| span.as_secs_f64()),
        )
    }

    /// Of the ratios of two sides' samples, turn by turn.
    pub(crate) fn of_ratios(
        over: impl IntoIterator<Item = f64>,
        under: impl IntoIterator<Item = f64>,
    ) -> Self {
        let ratios = over.into_iter().zip(under).map(|(a, b)| a / b);
        Self::of(Unit::Ratio, ratios)
    }

    /// `[323 … 1,893 MB/s]`, or nothing for a single sample.
    pub(crate) fn range(&self) -> String {
        if self.samples < 2 {
            return String::new();
        }
        format!(
            "{} … {}",
            write(self.unit, self.min),
            write(self.unit, self.max)
        )
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(self.unit, self.median))
    }
}

/// A number with its unit, in three or so digits.
pub(crate) fn write(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Ratio => digits(value),
        Unit::BytesPerSecond if value >= 1e9 => format!("{} GB/s", digits(value / 1e9)),
        Unit::BytesPerSecond => format!("{} MB/s", digits(value / 1e6)),
        Unit::RecordsPerSecond if value >= 1e6 => format!("{} M/s", digits(value / 1e6)),
        Unit::RecordsPerSecond if value >= 1e3 => format!("{} k/s", digits(value / 1e3)),
        Unit::RecordsPerSecond => format!("{} /s", digits(value)),
        Unit::Seconds if value < 1e-6 => format!("{} ns", digits(value * 1e9)),
        Unit::Seconds if value < 1e-3 => format!("{} µs", digits(value * 1e6)),
        Unit::Seconds if value < 1.0 => format!("{} ms", digits(value * 1e3)),
        Unit::Seconds => format!("{} s", digits(value)),
        Unit::CpuSecondsPerGb => format!("{} s/GB", digits(value)),
        Unit::Bytes if value < f64::from(1 << 20) => format!("{} KiB", digits(value / 1024.0)),
        Unit::Bytes => format!("{} MiB", digits(value / f64::from(1 << 20))),
        Unit::Records => format!("{} records", digits(value)),
    }
}

fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
