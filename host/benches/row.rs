//! One row of the table: a figure, its limit, and whether its goal is met.

use serde::Serialize;

use crate::figure::{Figure, Unit, write};

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The group that measured it.
    pub(crate) group: &'static str,
    /// What was measured.
    pub(crate) name: String,
    pub(crate) measured: Figure,
    /// The best that was possible in the same run, and what that was.
    pub(crate) limit: Option<Limit>,
    /// Measured over limit, or as the row's name says; turn by turn where both took turns.
    pub(crate) ratio: Option<Figure>,
    pub(crate) goal: Option<Goal>,
    /// Whether the goal is met; none without a goal.
    pub(crate) met: Option<bool>,
}

/// What a figure is compared with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Limit {
    pub(crate) what: String,
    pub(crate) figure: Figure,
}

/// What is wanted of a median.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// The figure is no more than this.
    AtMost(f64),
    /// The ratio is no less than this.
    RatioAtLeast(f64),
    /// The ratio is no more than this.
    RatioAtMost(f64),
    /// The figure exceeds its limit by no more than this.
    AboveLimitAtMost(f64),
}

impl Row {
    pub(crate) fn new(group: &'static str, name: impl Into<String>, measured: Figure) -> Self {
        Self {
            group,
            name: name.into(),
            measured,
            limit: None,
            ratio: None,
            goal: None,
            met: None,
        }
    }

    pub(crate) fn limit(mut self, what: impl Into<String>, figure: Figure) -> Self {
        self.limit = Some(Limit {
            what: what.into(),
            figure,
        });
        self
    }

    pub(crate) fn ratio(mut self, ratio: Figure) -> Self {
        self.ratio = Some(ratio);
        self
    }

    /// The ratio of the medians, where the two did not take turns.
    pub(crate) fn ratio_of_medians(self) -> Self {
        let limit = self.limit.as_ref().map_or(f64::NAN, |l| l.figure.median);
        let ratio = Figure::of(Unit::Ratio, [self.measured.median / limit]);
        self.ratio(ratio)
    }

    /// Sets the goal; comes last.
    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        let ratio = self.ratio.map_or(f64::NAN, |ratio| ratio.median);
        let limit = self.limit.as_ref().map_or(f64::NAN, |l| l.figure.median);
        // Without a figure, no goal is met: comparisons with NaN are false.
        self.met = Some(match goal {
            Goal::AtMost(most) => self.measured.median <= most,
            Goal::RatioAtLeast(least) => ratio >= least,
            Goal::RatioAtMost(most) => ratio <= most,
            Goal::AboveLimitAtMost(most) => self.measured.median - limit <= most,
        });
        self.goal = Some(goal);
        self
    }

    /// The goal in words.
    pub(crate) fn goal_text(&self) -> String {
        let unit = self.measured.unit;
        match self.goal {
            None => String::new(),
            Some(Goal::AtMost(most)) => format!("≤ {}", write(unit, most)),
            Some(Goal::RatioAtLeast(least)) => format!("ratio ≥ {least}"),
            Some(Goal::RatioAtMost(most)) => format!("ratio ≤ {most}"),
            Some(Goal::AboveLimitAtMost(most)) => format!("≤ limit + {}", write(unit, most)),
        }
    }

    /// `met`, `missed`, or nothing.
    pub(crate) fn verdict(&self) -> &'static str {
        match self.met {
            None => "",
            Some(true) => "met",
            Some(false) => "missed",
        }
    }
}
