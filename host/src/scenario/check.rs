//! From a scenario as it is written to one that can be run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use shardmill_core::{ShardId, StreamName, UnixMillis};
use toml::Spanned;

use super::action::{Action, Step};
use super::error::{BadScenario, Source};
use super::expect::{self, Expectation, one_of};
use super::table::{RawScenario, StepTable};
use super::{lines, span};
use crate::manifest::{BadKey, FunctionTable, Manifest, MappingTable, StreamTable, instant};

/// The time at which scenarios begin that name none: 2026-01-01T00:00:00Z.
const START: UnixMillis = UnixMillis(1_767_225_600_000);
/// What the function, the mapping and the stream are called that have no name.
const FUNCTION: &str = "handler";
const MAPPING: &str = "mapping";
const STREAM: &str = "in";

/// A scenario that can be run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The file.
    pub(super) path: PathBuf,
    /// Its name; the file's without its ending where it has none.
    pub(super) name: String,
    /// When it begins.
    pub(super) start: UnixMillis,
    /// Its streams, its function and its mapping.
    pub(super) manifest: Manifest,
    /// The line of the function's table.
    pub(super) function_line: usize,
    /// What happens.
    pub(super) steps: Vec<Step>,
    /// What must hold at the end.
    pub(super) expect: Vec<Expectation>,
}

impl Scenario {
    /// Reads and checks a scenario. A module, or another file that it names, is looked for beside
    /// it; a module then also in `modules`.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or says what makes no sense.
    pub fn load(path: &Path, modules: Option<&Path>) -> Result<Self, BadScenario> {
        let unreadable = |source| BadScenario::Unreadable {
            path: path.into(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let folder = std::path::absolute(path).map_err(unreadable)?;
        let folder = folder.parent().unwrap_or(Path::new("/"));
        Self::parse(&text, path, folder, modules)
    }

    /// Checks the text of the scenario at `path`, whose files are relative to `folder`.
    ///
    /// # Errors
    /// See [`Scenario::load`].
    pub(super) fn parse(
        text: &str,
        path: &Path,
        folder: &Path,
        modules: Option<&Path>,
    ) -> Result<Self, BadScenario> {
        let source = Source { path, text };
        let raw: RawScenario = toml::from_str(text).map_err(|error| source.syntax(&error))?;
        let places = Places { folder, modules };
        let function = raw.function.ok_or_else(|| {
            source.bad(
                0,
                "[function] is missing: the handler's module expected, as wasm = \"f.wasm\"",
            )
        })?;
        let function_line = source.line(function.span().start);
        let tables = Tables {
            function,
            mapping: raw.mapping,
            streams: raw.stream,
        };
        let manifest = tables.check(&source, &places)?;
        let start = match raw.start {
            None => START,
            Some(at) => {
                let read = instant("start", at.get_ref(), "");
                read.map_err(|bad| source.bad(at.span().start, bad.to_string()))?
            }
        };
        let mut steps = Vec::new();
        let mut time = None;
        for (index, table) in raw.step.into_iter().enumerate() {
            let reader = StepReader {
                source: &source,
                places: &places,
                manifest: &manifest,
                at: table.span().start,
            };
            steps.push(reader.read(table.into_inner(), index, &mut time)?);
        }
        let expect = raw.expect;
        let expect = expect.map(|table| expect::read(table, "end", &source, &manifest));
        let expect = expect.transpose()?.unwrap_or_default();
        if expect.is_empty() && steps.iter().all(|step| step.expect.is_empty()) {
            let message =
                "nothing is expected: a table [expect], at the end or of a step, expected";
            return Err(source.bad(0, message));
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            path: path.into(),
            name: raw.name.unwrap_or_else(|| name.into_owned()),
            start,
            manifest,
            function_line,
            steps,
            expect,
        })
    }
}

/// Where files are looked for.
struct Places<'a> {
    folder: &'a Path,
    modules: Option<&'a Path>,
}

impl Places<'_> {
    fn module(&self, file: &Path) -> PathBuf {
        let beside = self.folder.join(file);
        match self.modules.map(|modules| modules.join(file)) {
            Some(elsewhere) if !beside.is_file() && elsewhere.is_file() => elsewhere,
            _ => beside,
        }
    }
}

/// The manifest's tables, with their places in the file.
struct Tables {
    function: Spanned<FunctionTable>,
    mapping: Option<Spanned<MappingTable>>,
    streams: Vec<Spanned<StreamTable>>,
}

impl Tables {
    /// Checks them as a manifest, with a function, a mapping and a stream that need no names.
    fn check(self, source: &Source<'_>, places: &Places<'_>) -> Result<Manifest, BadScenario> {
        let function_at = self.function.span().start;
        let mapping_at = self.mapping.as_ref().map_or(0, |table| table.span().start);
        let streams_at: Vec<usize> = self
            .streams
            .iter()
            .map(|table| table.span().start)
            .collect();
        let mut function = self.function.into_inner();
        let mut mapping = self.mapping.map(Spanned::into_inner).unwrap_or_default();
        let mut streams: Vec<_> = self.streams.into_iter().map(Spanned::into_inner).collect();
        let scoped = [
            (function_at, &function.account, &function.region),
            (mapping_at, &mapping.account, &mapping.region),
        ];
        let scoped = scoped.into_iter().chain(
            (streams_at.iter().zip(&streams))
                .map(|(at, table)| (*at, &table.account, &table.region)),
        );
        for (at, account, region) in scoped {
            if account.is_some() || region.is_some() {
                let message = "account and region: leave them out, a scenario has one of each";
                return Err(source.bad(at, message));
            }
        }
        if mapping.on_failure.is_some() {
            let message = "on_failure: leave it out, a scenario reports to nobody; `failures` \
                           expects what would be reported";
            let at = source.key_in(mapping_at, "on_failure");
            return Err(source.bad(at.unwrap_or(mapping_at), message));
        }
        if let Some(wasm) = &mut function.wasm {
            *wasm = places.module(wasm);
        }
        let function_name = function.name.get_or_insert_with(|| FUNCTION.into()).clone();
        if streams.is_empty() {
            streams.push(StreamTable {
                name: Some(STREAM.into()),
                shards: Some(1),
                ..StreamTable::default()
            });
        }
        let first = streams[0].name.clone();
        mapping.name.get_or_insert_with(|| MAPPING.into());
        mapping
            .function
            .get_or_insert_with(|| function_name.clone());
        if mapping.stream.is_none() {
            mapping.stream = first;
        }
        let names: Vec<_> = streams.iter().map(|table| table.name.clone()).collect();
        let place = |bad: &BadKey| match bad.table.split(' ').next() {
            Some("function") => function_at,
            Some("stream") => {
                let named = |name: &Option<String>| {
                    name.as_ref()
                        .is_some_and(|name| bad.table == format!("stream {name:?}"))
                };
                let nameless = || names.iter().position(Option::is_none);
                let twice = || names.len().checked_sub(1);
                let index = names
                    .iter()
                    .position(named)
                    .or_else(nameless)
                    .or_else(twice);
                index.and_then(|i| streams_at.get(i)).copied().unwrap_or(0)
            }
            _ => mapping_at,
        };
        let manifest = Manifest::of_tables(streams, function, mapping, Path::new("/"));
        let manifest = manifest.map_err(|bad| source.bad_key(place(&bad), &bad))?;
        let mapped = &manifest.mappings[0];
        if mapped.function != function_name {
            let message = format!(
                "function = {:?}: it is called {function_name:?} here",
                mapped.function
            );
            return Err(source.bad(mapping_at, message));
        }
        if !manifest
            .streams
            .iter()
            .any(|stream| stream.name == mapped.stream)
        {
            return Err(source.bad(mapping_at, no_stream(mapped.stream.as_str(), &manifest)));
        }
        Ok(manifest)
    }
}

/// Reads one step.
struct StepReader<'a> {
    source: &'a Source<'a>,
    places: &'a Places<'a>,
    manifest: &'a Manifest,
    /// Where the step begins in the file.
    at: usize,
}

impl StepReader<'_> {
    /// `time` is that of the step before it, as far as times were given.
    fn read(
        self,
        table: StepTable,
        index: usize,
        time: &mut Option<Duration>,
    ) -> Result<Step, BadScenario> {
        let source = self.source;
        let label = match &table.name {
            Some(name) => format!("step {} ({name})", index + 1),
            None => format!("step {}", index + 1),
        };
        let at = table
            .at
            .as_ref()
            .map(|at| self.span("at", at))
            .transpose()?;
        if let (Some(at), Some(before)) = (at, *time)
            && at < before
        {
            let (at, before) = (span::format(at), span::format(before));
            let message = format!("at = {at:?}: it is over, the time before it is {before}");
            return Err(source.bad(self.at, message));
        }
        *time = at.or(*time);
        let expect = table.expect.as_ref().is_some();
        let mut actions = Vec::new();
        let stream = table
            .stream
            .as_ref()
            .map(|name| self.stream(name))
            .transpose()?;
        let has_stream = table.put.is_some() || table.split.is_some() || table.merge.is_some();
        if let (Some(name), false) = (&table.stream, has_stream) {
            let message = "stream goes with put, split and merge: leave it out";
            return Err(source.bad(name.span().start, message));
        }
        let stream = stream.unwrap_or_else(|| self.manifest.mappings[0].stream.clone());
        if let Some(entries) = table.put {
            let mut records = Vec::new();
            for entry in entries {
                let place = entry.span().start;
                let read = lines::read(entry.into_inner(), self.places.folder);
                let read = read.map_err(|why| source.bad(place, why))?;
                *time = lines::in_order(&read, *time).map_err(|why| source.bad(place, why))?;
                records.extend(read);
            }
            let stream = stream.clone();
            actions.push(("put", Action::Put { stream, records }));
        }
        if let Some(span) = &table.wait {
            actions.push(("wait", Action::Wait(self.span("wait", span)?)));
        }
        if let Some(span) = &table.drain {
            actions.push(("drain", Action::Drain(self.span("drain", span)?)));
        }
        if let Some(word) = &table.r#do {
            actions.push(("do", self.word(word)?));
        }
        if let Some(file) = &table.deploy {
            actions.push(("deploy", Action::Deploy(self.places.module(file.get_ref()))));
        }
        if let Some(keys) = table.unpark {
            actions.push(("unpark", Action::Unpark(keys.into_inner())));
        }
        if let Some(shard) = &table.split {
            let split = Action::Split(stream.clone(), ShardId(*shard.get_ref()));
            actions.push(("split", split));
        }
        if let Some(shards) = &table.merge {
            let [lower, upper] = shards.get_ref().map(ShardId);
            actions.push(("merge", Action::Merge(stream, lower, upper)));
        }
        if let [(first, _), (second, _), ..] = &actions[..] {
            let message =
                format!("a step does one thing: make a step of `{first}` and one of `{second}`");
            return Err(source.bad(self.at, message));
        }
        let action = actions.pop().map_or(Action::None, |(_, action)| action);
        if matches!(action, Action::None) && at.is_none() && !expect {
            let message = "the step does nothing: one of put, wait, drain, do, deploy, unpark, split, merge, at, expect expected";
            return Err(source.bad(self.at, message));
        }
        let expect = table
            .expect
            .map(|table| expect::read(table, &label, source, self.manifest));
        Ok(Step {
            line: source.line(self.at),
            label,
            at,
            action,
            expect: expect.transpose()?.unwrap_or_default(),
        })
    }

    fn span(&self, key: &str, text: &Spanned<String>) -> Result<Duration, BadScenario> {
        let bad = || {
            let message = format!("{key} = {:?}: {}", text.get_ref(), span::EXPECTED);
            self.source.bad(text.span().start, message)
        };
        span::parse(text.get_ref()).ok_or_else(bad)
    }

    fn stream(&self, name: &Spanned<String>) -> Result<StreamName, BadScenario> {
        let mut all = self.manifest.streams.iter().map(|stream| &stream.name);
        let found = all.find(|known| known.as_str() == name.get_ref()).cloned();
        found.ok_or_else(|| {
            let message = no_stream(name.get_ref(), self.manifest);
            self.source.bad(name.span().start, message)
        })
    }

    fn word(&self, word: &Spanned<String>) -> Result<Action, BadScenario> {
        let known = ["pause", "resume", "restart", "kill"];
        one_of("do", word.get_ref(), &known)
            .map_err(|why| self.source.bad(word.span().start, why))?;
        Ok(match word.get_ref().as_str() {
            "pause" => Action::Pause,
            "resume" => Action::Resume,
            "restart" => Action::Restart,
            _ => Action::Kill,
        })
    }
}

fn no_stream(name: &str, manifest: &Manifest) -> String {
    let names: Vec<&str> = manifest.streams.iter().map(|s| s.name.as_str()).collect();
    match one_of("stream", name, &names) {
        Ok(()) => format!("stream {name:?}"),
        Err(why) => why,
    }
}
