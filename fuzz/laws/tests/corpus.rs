//! Every law over its corpus and over seeded mutations of it: the short run, the same each time.
//!
//! A failure says the target, the seed and the file with the input. That one input again:
//! `SHARDMILL_FUZZ_INPUT=FILE cargo test -p shardmill-laws --test corpus TEST`.
//! `SHARDMILL_FUZZ_MUTATIONS=N` asks for more of them than a test run has time for.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use shardmill_laws::TARGETS;
use shardmill_store::io::sim::Random;

/// Most bytes of a mutated input.
const MAX_BYTES: u64 = 4_096;

/// A target's inputs, and the words of its dictionary.
struct Corpus {
    inputs: Vec<(PathBuf, Vec<u8>)>,
    words: Vec<Vec<u8>>,
}

impl Corpus {
    fn of(target: &str) -> Self {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let fuzz = fuzz.expect("the folder above");
        let folder = fuzz.join("corpus").join(target);
        let entries = fs::read_dir(&folder).expect("a corpus");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
        files.sort();
        let read = |file: PathBuf| {
            let bytes = fs::read(&file).expect("an input");
            (file, bytes)
        };
        let words = fs::read_to_string(fuzz.join("dictionaries").join(target));
        Self {
            inputs: files.into_iter().map(read).collect(),
            words: words.map_or_else(
                |_| Vec::new(),
                |text| text.lines().filter_map(word).collect(),
            ),
        }
    }

    /// The mutation that a seed means.
    fn mutated(&self, seed: u64) -> Vec<u8> {
        let mut random = Random(seed);
        let mut bytes = self.pick(&mut random).to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64 + 1) as usize;
            let rest = bytes.len() - at;
            match random.below(8) {
                0 => bytes.truncate(at),
                1 if rest > 0 => bytes[at] ^= 1 << random.below(8),
                2 if rest > 0 => bytes[at] = random.next_u64() as u8,
                3 => bytes.insert(at, random.next_u64() as u8),
                4 if rest > 0 => drop(bytes.drain(at..at + 1 + random.below(rest as u64) as usize)),
                5 if rest > 0 => {
                    let piece = bytes[at..at + 1 + random.below(rest as u64) as usize].to_vec();
                    let to = random.below(bytes.len() as u64 + 1) as usize;
                    bytes.splice(to..to, piece);
                }
                6 if !self.words.is_empty() => {
                    let word = &self.words[random.below(self.words.len() as u64) as usize];
                    bytes.splice(at..at, word.iter().copied());
                }
                _ => {
                    let other = self.pick(&mut random);
                    let from = random.below(other.len() as u64 + 1) as usize;
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
            bytes.truncate(MAX_BYTES as usize);
        }
        bytes
    }

    fn pick(&self, random: &mut Random) -> &[u8] {
        &self.inputs[random.below(self.inputs.len() as u64) as usize].1
    }
}

/// A line `name="text"` of a dictionary of libFuzzer's, with `\xAB`, `\\` and `\"` in it.
fn word(line: &str) -> Option<Vec<u8>> {
    let text = line.split_once('"')?.1.strip_suffix('"')?;
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let (byte, taken) = match (first, after) {
            (b'\\', [b'x', high, low, ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok()?;
                (u8::from_str_radix(digits, 16).ok()?, 4)
            }
            (b'\\', [escaped, ..]) => (*escaped, 2),
            _ => (*first, 1),
        };
        out.push(byte);
        rest = &rest[taken..];
    }
    Some(out)
}

/// Runs a target over its corpus and over so many mutations of it.
fn run(target: &str, mutations: u64) {
    let (_, check) = TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .expect("a target");
    if let Some(file) = std::env::var_os("SHARDMILL_FUZZ_INPUT") {
        check(&fs::read(file).expect("an input"));
        return;
    }
    let asked = std::env::var("SHARDMILL_FUZZ_MUTATIONS").ok();
    let mutations = asked.map_or(mutations, |n| n.parse().expect("a number"));
    let corpus = Corpus::of(target);
    for (file, input) in &corpus.inputs {
        if let Err(broken) = catch_unwind(AssertUnwindSafe(|| check(input))) {
            eprintln!("{target} breaks a law on {}", file.display());
            resume_unwind(broken);
        }
    }
    for seed in 0..mutations {
        let input = corpus.mutated(seed);
        if let Err(broken) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{target}-{seed}"));
            fs::write(&file, &input).expect("the input is written");
            eprintln!("{target} breaks a law with seed {seed}: {}", file.display());
            resume_unwind(broken);
        }
    }
}

#[test]
fn aggregates() {
    run("aggregate", 20_000);
}

#[test]
fn answers() {
    run("answer", 100_000);
}

#[test]
fn batches() {
    run("batch", 20_000);
}

#[test]
fn bodies_in_chunks() {
    run("chunked", 50_000);
}

#[test]
fn filters() {
    run("filter", 20_000);
}

#[test]
fn frames() {
    run("frame", 50_000);
}

#[test]
fn journals() {
    run("journal", 2_000);
}

#[test]
fn keys() {
    run("key", 50_000);
}

#[test]
fn kinesis_bodies() {
    run("kinesis", 3_000);
}

#[test]
fn manifests() {
    run("manifest", 5_000);
}

#[test]
fn native_requests() {
    run("native", 2_000);
}

#[test]
fn signatures() {
    run("sigv4", 5_000);
}

#[test]
fn sqs_bodies() {
    run("sqs", 3_000);
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a folder");
    let names = |folder: &str| {
        let entries = fs::read_dir(fuzz.join(folder)).expect("a folder");
        let path = entries.map(|entry| entry.expect("an entry").path());
        let name = path.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
        let mut names: Vec<_> = name.collect();
        names.sort();
        names
    };
    let targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
    let programs = fs::read_to_string(fuzz.join("Cargo.toml")).expect("a manifest");
    for (name, _) in TARGETS {
        assert!(programs.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(
            Corpus::of(name).inputs.len() >= 3,
            "{name} has hardly a corpus"
        );
    }
}
