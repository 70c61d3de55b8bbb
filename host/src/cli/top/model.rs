//! What `top` shows: mappings and shards as rows, with rates from two answers of the host. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use serde_json::Value;

use crate::cli::print;

/// Rates that are kept of each mapping, one a refresh.
const HISTORY: usize = 60;

/// By what rows are sorted, highest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// Age of the oldest record that is not done.
    #[default]
    Age,
    /// Records behind.
    Behind,
    /// Records a second.
    Records,
    /// Errors a second.
    Errors,
    /// Fuel a second.
    Fuel,
    /// Lowest first.
    Name,
}

impl Order {
    pub(super) const ALL: [(char, Self, &str); 6] = [
        ('a', Self::Age, "age"),
        ('b', Self::Behind, "behind"),
        ('r', Self::Records, "records/s"),
        ('e', Self::Errors, "errors/s"),
        ('f', Self::Fuel, "fuel/s"),
        ('n', Self::Name, "name"),
    ];

    pub(super) fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, order, _)| *order == self);
        found.map_or("", |(_, _, word)| word)
    }
}

/// A mapping or a shard at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Row {
    /// The mapping's name.
    pub(super) mapping: String,
    /// The shard's number, if this is one.
    pub(super) shard: Option<String>,
    pub(super) state: String,
    pub(super) circuit: String,
    pub(super) records_per_second: f64,
    pub(super) invocations_per_second: f64,
    pub(super) errors_per_second: f64,
    pub(super) fuel_per_second: f64,
    pub(super) age_ms: u64,
    pub(super) behind: u64,
    pub(super) bytes_behind: u64,
    pub(super) parked: u64,
    pub(super) last_error: String,
    /// Records a second at the last refreshes, the newest last.
    pub(super) history: Vec<f64>,
}

/// Counters whose rates are shown, in the order of [`Counts`].
const COUNTERS: [&str; 4] = ["processed", "invocations", "errors", "fuel"];

type Counts = [u64; COUNTERS.len()];
type Name = (String, Option<String>);

/// The table and how it is looked at.
#[derive(Default)]
pub(super) struct Top {
    rows: Vec<Row>,
    before: BTreeMap<Name, Counts>,
    history: BTreeMap<Name, VecDeque<f64>>,
    before_ms: Option<u64>,
    /// Age of what is shown, seconds, when it is older than it should be.
    pub(super) stale_seconds: Option<u64>,
    expanded: BTreeSet<String>,
    selected: usize,
    pub(super) order: Order,
    pub(super) paused: bool,
    /// Why the last refresh failed.
    pub(super) trouble: Option<String>,
    pub(super) endpoint: String,
}

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Quit,
    Up,
    Down,
    /// Show or hide the shards of the selected mapping.
    Expand,
    Pause,
    Sort(Order),
}

impl Top {
    pub(super) fn new(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.into(),
            ..Self::default()
        }
    }

    /// Takes an answer of the host over, which came at this instant.
    pub(super) fn update(&mut self, answer: &Value, now_ms: u64) {
        let selected = self.selected_name();
        let elapsed = self.before_ms.map(|before| now_ms.saturating_sub(before));
        let seconds = elapsed.filter(|ms| *ms > 0).map(|ms| ms as f64 / 1000.0);
        self.rows.clear();
        let mut before = BTreeMap::new();
        for mapping in array(answer, "mappings") {
            let mut shards = Vec::new();
            for shard in array(mapping, "shards") {
                shards.push(row_of_shard(mapping, shard));
            }
            let whole = (row_of_mapping(mapping, &shards), mapping);
            let of_shards = shards.into_iter().zip(array(mapping, "shards"));
            for (mut row, value) in std::iter::once(whole).chain(of_shards) {
                let name = (row.mapping.clone(), row.shard.clone());
                let counts = COUNTERS.map(|key| number(value, key));
                let rates = self.rates(&name, counts, seconds);
                [
                    row.records_per_second,
                    row.invocations_per_second,
                    row.errors_per_second,
                    row.fuel_per_second,
                ] = rates;
                let history = self.history.entry(name.clone()).or_default();
                if seconds.is_some() {
                    history.push_back(row.records_per_second);
                }
                while history.len() > HISTORY {
                    history.pop_front();
                }
                row.history = history.iter().copied().collect();
                before.insert(name, counts);
                self.rows.push(row);
            }
        }
        self.history.retain(|name, _| before.contains_key(name));
        (self.before, self.before_ms, self.trouble) = (before, Some(now_ms), None);
        self.stale_seconds = None;
        self.select(selected);
    }

    /// Time has passed. `true`: what is shown is old, and its age has changed.
    #[must_use]
    pub(super) fn tick(&mut self, now_ms: u64) -> bool {
        /// From this age on the table says how old it is: refreshes come every second.
        const STALE_MS: u64 = 3_000;
        let age = self.before_ms.map(|at| now_ms.saturating_sub(at));
        let stale = age.filter(|age| *age >= STALE_MS).map(|age| age / 1000);
        std::mem::replace(&mut self.stale_seconds, stale) != stale
    }

    fn rates(&self, name: &Name, counts: Counts, seconds: Option<f64>) -> [f64; COUNTERS.len()] {
        let (Some(before), Some(seconds)) = (self.before.get(name), seconds) else {
            return [0.0; COUNTERS.len()];
        };
        let mut rates = [0.0; COUNTERS.len()];
        for (rate, (now, before)) in rates.iter_mut().zip(counts.iter().zip(before)) {
            // Counters begin anew with the host.
            *rate = now.saturating_sub(*before) as f64 / seconds;
        }
        rates
    }

    /// The rows in their order: each mapping, and behind it its shards where they are wanted.
    pub(super) fn shown(&self) -> Vec<&Row> {
        let mut mappings: Vec<&Row> = self.rows.iter().filter(|r| r.shard.is_none()).collect();
        self.sort(&mut mappings);
        let mut shown = Vec::new();
        for mapping in mappings {
            shown.push(mapping);
            if self.expanded.contains(&mapping.mapping) {
                let of_it = |r: &&Row| r.shard.is_some() && r.mapping == mapping.mapping;
                let mut shards: Vec<&Row> = self.rows.iter().filter(of_it).collect();
                self.sort(&mut shards);
                shown.extend(shards);
            }
        }
        shown
    }

    fn sort(&self, rows: &mut [&Row]) {
        let key = |row: &Row| match self.order {
            Order::Age => row.age_ms as f64,
            Order::Behind => row.behind as f64,
            Order::Records => row.records_per_second,
            Order::Errors => row.errors_per_second,
            Order::Fuel => row.fuel_per_second,
            Order::Name => 0.0,
        };
        rows.sort_by(|a, b| {
            let names = (&a.mapping, &a.shard).cmp(&(&b.mapping, &b.shard));
            key(b).total_cmp(&key(a)).then(names)
        });
    }

    pub(super) fn selected(&self) -> usize {
        self.selected
    }

    fn selected_name(&self) -> Option<Name> {
        let shown = self.shown();
        let row = shown.get(self.selected)?;
        Some((row.mapping.clone(), row.shard.clone()))
    }

    /// Selects this row again, wherever it is by now.
    fn select(&mut self, name: Option<Name>) {
        let shown = self.shown();
        let same = |row: &&Row| {
            name.as_ref()
                .is_some_and(|(m, s)| row.mapping == *m && row.shard == *s)
        };
        let last = shown.len().saturating_sub(1);
        let found = shown.iter().position(same);
        self.selected = found.unwrap_or(self.selected.min(last));
    }

    /// Does what a person wants. `false`: the end.
    #[must_use]
    pub(super) fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Quit => return false,
            Command::Up => self.selected = self.selected.saturating_sub(1),
            Command::Down => {
                let last = self.shown().len().saturating_sub(1);
                self.selected = (self.selected + 1).min(last);
            }
            Command::Pause => self.paused = !self.paused,
            Command::Sort(order) => {
                let selected = self.selected_name();
                self.order = order;
                self.select(selected);
            }
            Command::Expand => {
                if let Some((mapping, _)) = self.selected_name() {
                    if !self.expanded.remove(&mapping) {
                        self.expanded.insert(mapping.clone());
                    }
                    self.select(Some((mapping, None)));
                }
            }
        }
        true
    }

    /// Shows the shards of every mapping.
    pub(super) fn expand_all(&mut self) {
        self.expanded = self.rows.iter().map(|r| r.mapping.clone()).collect();
    }
}

fn row_of_mapping(mapping: &Value, shards: &[Row]) -> Row {
    let newest = array(mapping, "shards")
        .iter()
        .map(|s| &s["last_error"])
        .max_by_key(|e| number(e, "at"));
    Row {
        mapping: text(mapping, "name"),
        shard: None,
        state: text(mapping, "state").to_lowercase(),
        circuit: text(mapping, "circuit"),
        age_ms: shards.iter().map(|s| s.age_ms).max().unwrap_or(0),
        behind: shards.iter().map(|s| s.behind).sum(),
        bytes_behind: shards.iter().map(|s| s.bytes_behind).sum(),
        parked: number(mapping, "parked_records"),
        last_error: newest.map(|e| text(e, "message")).unwrap_or_default(),
        ..Row::default()
    }
}

fn row_of_shard(mapping: &Value, shard: &Value) -> Row {
    let name = text(shard, "shard");
    let number_of = name.trim_start_matches("shardId-").trim_start_matches('0');
    let number_of = if number_of.is_empty() { "0" } else { number_of };
    let paused = text(shard, "paused");
    Row {
        mapping: text(mapping, "name"),
        shard: Some(number_of.to_owned()),
        state: text(shard, "state"),
        circuit: text(mapping, "circuit"),
        age_ms: number(shard, "iterator_age_ms"),
        behind: number(shard, "records_behind"),
        bytes_behind: number(shard, "bytes_behind"),
        parked: number(shard, "parked"),
        last_error: match paused.is_empty() {
            true => text(&shard["last_error"], "message"),
            false => paused,
        },
        ..Row::default()
    }
}

fn array<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or(0)
}

fn text(of: &Value, key: &str) -> String {
    print::cell(&of[key])
}
