//! Proves the templates of `shardmill new`: writes each, runs its own tests, builds it by
//! `shardmill build` with tools from the registries alone, and runs it on a host of its own.
//!
//! What was built is kept by the digest of what it was built from (the project's files and the
//! recipes, which name the tools' versions), and so is what the host compiled of it: a run in
//! which no template has changed builds nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::host::Host;
use crate::progress::Progress;
use crate::tally::Tally;
use crate::wasm_target::{self, WasmTarget};
use crate::{paths, program};

/// Where a host keeps what it compiled, below its data.
const COMPILED: &str = "artifacts";

/// How long a host may take to handle some records.
const HANDLED_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A language, how its own tests are run, and the records that its handler is given.
struct Template {
    language: &'static str,
    test: &'static [&'static str],
    records: &'static str,
}

const CLICKS: &str = "{\"page\": \"/\"}\n{\"page\": \"/cart\"}\n{\"page\": \"/\"}\n";
const PAGES: &str = "/\n/cart\n/\n";

const TEMPLATES: [Template; 6] = [
    Template {
        language: "rust",
        test: &["cargo", "test", "--quiet"],
        records: CLICKS,
    },
    Template {
        language: "python",
        test: &["python3", "-m", "unittest"],
        records: CLICKS,
    },
    Template {
        language: "python-lambda",
        test: &["python3", "-m", "unittest"],
        records: CLICKS,
    },
    Template {
        language: "javascript",
        test: &["node", "--test"],
        records: CLICKS,
    },
    Template {
        language: "c",
        test: &["make", "test"],
        records: PAGES,
    },
    Template {
        language: "go",
        test: &["go", "test", "./..."],
        records: CLICKS,
    },
];

/// A template's module, and what to give it.
struct Built {
    language: &'static str,
    module: PathBuf,
    records: PathBuf,
}

/// Builds and runs all templates; each counts as one test.
///
/// # Errors
/// There is no host, or it does not start.
pub(crate) fn test(tally: &mut Tally) -> Result<()> {
    let cache = paths::cache()?.join("templates");
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let work = tempfile::tempdir().context("make a folder for the projects")?;
    let target = wasm_target::ensure()?;
    let mut built = Vec::new();
    for template in &TEMPLATES {
        let project = work.path().join(template.language);
        match build(template, &project, &cache, &target) {
            Ok(one) => built.push(one),
            Err(error) => fail(tally, template.language, &error),
        }
    }
    let data = work.path().join("host");
    let host = start(&data, &cache)?;
    for one in &built {
        match run(&host, one) {
            Ok(figures) => {
                println!("test template {} ... ok ({figures})", one.language);
                tally.pass_one();
            }
            Err(error) => fail(tally, one.language, &error),
        }
    }
    host.stop()?;
    keep_compiled(&data, &cache)
}

fn fail(tally: &mut Tally, language: &str, error: &anyhow::Error) {
    println!("test template {language} ... FAILED\n{error:#}");
    let mut one = Tally::default();
    one.fail_at_least_one();
    tally.add(one);
}

/// Writes the project; tests and builds it unless that was done before.
fn build(template: &Template, project: &Path, cache: &Path, target: &WasmTarget) -> Result<Built> {
    let language = template.language;
    let mut new = Command::new(paths::host_binary()?);
    new.args(["new", "hello", "--lang", language, "--dir"])
        .arg(project);
    program::quiet(&mut new)?;
    let records = project.with_extension("records");
    fs::write(&records, template.records).context("write the records")?;
    let module = cache.join(format!("{language}-{}.wasm", key(project)?));
    if !module.is_file() {
        let progress = Progress::start("templates");
        progress.note(&format!("testing and building {language}"));
        let mut build = Command::new(paths::host_binary()?);
        build.arg("build").arg(project);
        // The machine's own compiler runs the tests, the one for wasm builds.
        target.apply(&mut build);
        program::quiet(in_project(&mut build, project, cache))?;
        let (program, arguments) = template.test.split_first().context("a test's program")?;
        let mut test = Command::new(program);
        test.args(arguments);
        program::quiet(in_project(&mut test, project, cache))?;
        // Written beside its place, so that half of it is never taken for all.
        let beside = module.with_extension("new");
        fs::copy(project.join("hello.wasm"), &beside).context("keep the module")?;
        fs::rename(&beside, &module).context("keep the module")?;
    }
    Ok(Built {
        language,
        module,
        records,
    })
}

/// As on an author's machine, with the tools that a build has fetched.
fn in_project<'a>(command: &'a mut Command, project: &Path, cache: &Path) -> &'a mut Command {
    let tools = cache.with_file_name("tools");
    let fetched = fs::read_dir(tools).into_iter().flatten().flatten();
    let fetched = fetched
        .map(|tool| tool.path().join("made/bin"))
        .filter(|programs| programs.join("go").is_file());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::split_paths(&path).chain(fetched);
    if let Ok(path) = std::env::join_paths(path) {
        command.env("PATH", path);
    }
    command
        .current_dir(project)
        .env("CARGO_TARGET_DIR", cache.join("target"))
        .env_remove("RUSTFLAGS")
}

/// What the module of a project depends on.
fn key(project: &Path) -> Result<String> {
    let recipes = paths::workspace().join("host/src/cli/build/recipes.rs");
    let mut files = BTreeMap::from([(PathBuf::from("recipes"), fs::read(recipes)?)]);
    let mut folders = vec![project.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(project)?.to_owned(), fs::read(&path)?);
            }
        }
    }
    let mut hash = Sha256::new();
    for (path, content) in files {
        hash.update(format!("{}\n{}\n", path.display(), content.len()));
        hash.update(content);
    }
    let hex = |byte: &u8| format!("{byte:02x}");
    Ok(hash.finalize()[..8].iter().map(hex).collect())
}

fn start(data: &Path, cache: &Path) -> Result<Host> {
    fs::create_dir_all(data.join("data")).context("make the host's data folder")?;
    let compiled = cache.join(COMPILED);
    if compiled.is_dir() {
        copy(&compiled, &data.join("data").join(COMPILED))?;
    }
    let manifest = data.join("shardmill.toml");
    let stream = |t: &Template| format!("[[stream]]\nname = \"{}\"\nshards = 1\n", t.language);
    fs::write(&manifest, TEMPLATES.iter().map(stream).collect::<String>())?;
    Host::start(data, &manifest)
}

/// Keeps what was compiled for the next run; what nobody used this time goes.
fn keep_compiled(data: &Path, cache: &Path) -> Result<()> {
    let kept = cache.join(COMPILED);
    let _ = fs::remove_dir_all(&kept);
    copy(&data.join("data").join(COMPILED), &kept)
}

/// Copies a folder as it is; private folders stay private.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    program::quiet(copy.args(["-a", "--"]).arg(from).arg(to)).map(|_| ())
}

/// Deploys a module and gives it three records, then three hundred; what it cost.
fn run(host: &Host, built: &Built) -> Result<String> {
    let name = built.language;
    let module = built.module.to_str().context("a path in UTF-8")?;
    let began = Instant::now();
    host.text(&["functions", "deploy", name, module])?;
    let deployed = began.elapsed();
    let partial = "report_batch_item_failures=true";
    let mapping = [
        "mappings",
        "create",
        name,
        "--stream",
        name,
        "--function",
        name,
    ];
    let settings = ["--batch-size", "1000", "--set", partial];
    host.text(&[&mapping[..], &settings].concat())?;
    let few = handled(host, built, 1, Cost::default())?;
    let many = handled(host, built, 100, few)?;
    let bytes = fs::metadata(&built.module)?.len();
    let [start, record] = few.apart(many.since(few));
    Ok(format!(
        "{} KiB, deployed in {:.1} s; {:.0} fuel and {:.0} us to start, {:.0} fuel and {:.1} us a record",
        bytes >> 10,
        deployed.as_secs_f64(),
        start.fuel,
        start.micros,
        record.fuel,
        record.micros,
    ))
}

/// What a mapping has done so far.
#[derive(Clone, Copy, Default)]
struct Cost {
    records: f64,
    invocations: f64,
    fuel: f64,
    micros: f64,
}

impl Cost {
    fn since(self, before: Self) -> Self {
        Self {
            records: self.records - before.records,
            invocations: self.invocations - before.invocations,
            fuel: self.fuel - before.fuel,
            micros: self.micros - before.micros,
        }
    }

    /// What an invocation costs without its records, and what a record costs.
    fn apart(self, other: Self) -> [Self; 2] {
        let both = self.invocations * other.records - other.invocations * self.records;
        let solve = |own: f64, others: f64| {
            [
                (own * other.records - others * self.records) / both,
                (self.invocations * others - other.invocations * own) / both,
            ]
        };
        let [fuel, micros] = [
            solve(self.fuel, other.fuel),
            solve(self.micros, other.micros),
        ];
        [0, 1].map(|n| Self {
            fuel: fuel[n],
            micros: micros[n],
            ..Self::default()
        })
    }
}

/// Puts the records so many times over, and waits until they are handled.
fn handled(host: &Host, built: &Built, times: usize, before: Cost) -> Result<Cost> {
    let name = built.language;
    let records = built.records.with_extension(format!("{times}"));
    fs::write(&records, fs::read_to_string(&built.records)?.repeat(times))?;
    host.text(&["put", name, records.to_str().context("a path in UTF-8")?])?;
    let expected = before.records + (3 * times) as f64;
    let deadline = Instant::now() + HANDLED_LIMIT;
    loop {
        let counters = host.json(&["counters", name])?;
        let mapping = host.json(&["mappings", "describe", name])?;
        // A Lambda function has no counters: it prints.
        let counter = &counters["counters"][0];
        let counted = counter["name"] == "views" && counter["value"].as_f64() == Some(expected);
        let number = |key: &str| mapping[key].as_f64().unwrap_or_default();
        if number("processed") >= expected && (counted || name == "python-lambda") {
            return Ok(Cost {
                records: number("processed"),
                invocations: number("invocations"),
                fuel: number("fuel"),
                micros: number("duration_micros"),
            });
        }
        if Instant::now() > deadline {
            bail!("{expected} records were not handled: {counters} {mapping}");
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_and_a_record_are_told_apart() {
        let cost = |invocations: f64, records: f64| Cost {
            records,
            invocations,
            fuel: 1000.0 * invocations + 7.0 * records,
            micros: 50.0 * invocations + 0.5 * records,
        };
        let [start, record] = cost(2.0, 3.0).apart(cost(4.0, 300.0));
        assert!((start.fuel - 1000.0).abs() < 1e-6 && (record.fuel - 7.0).abs() < 1e-6);
        assert!((start.micros - 50.0).abs() < 1e-6 && (record.micros - 0.5).abs() < 1e-6);
    }
}
