//! Seeded runs: on random patterns and payloads the matcher says what the plain one says, and on
//! any bytes at all it says something. A failure prints its seed.

use serde_json::{Value, json};

use super::reference::{self, Make};
use super::*;

/// A small generator whose seed a failure prints.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len() as u64) as usize]
    }
}

/// Few keys, so that patterns and payloads meet; some with dots, one empty, one with an escape.
const KEYS: [&str; 8] = ["a", "b", "c", "a.b", "b.c", "", "ü", "q\"q"];
const TEXTS: [&str; 8] = ["", "x", "X", "xy", "yx", "x*y", "ü\n", "10"];
/// Spellings of a few numbers.
const NUMBERS: [&str; 14] = [
    "0", "-0", "0.0", "1", "1.0", "10e-1", "0.1E+1", "-1", "-1.5", "-15e-1", "100", "1e2", "2.50",
    "25e-1",
];

fn key(dice: &mut Dice, dotted: bool) -> &'static str {
    loop {
        let key = *dice.pick(&KEYS);
        if dotted || !key.contains('.') {
            return key;
        }
    }
}

fn rule(dice: &mut Dice) -> Value {
    let text = *dice.pick(&TEXTS);
    let number: &str = dice.pick::<&str>(&NUMBERS);
    let number: Value = serde_json::from_str(number).expect("a number");
    let part = ["x", "y", "X", "ü"][dice.roll(4) as usize];
    match dice.roll(16) {
        0 => Value::Null,
        1 => json!(dice.one_in(2)),
        2 | 3 => number,
        4 | 5 => json!(text),
        6 => json!({"prefix": text}),
        7 => json!({"suffix": text}),
        8 => json!({"equals-ignore-case": text}),
        9 => json!({"wildcard": format!("{part}*")}),
        10 => json!({"exists": true}),
        11 => json!({"exists": false}),
        12 => json!({"anything-but": [text, part]}),
        13 => json!({"anything-but": {"prefix": part}}),
        14 => json!({"numeric": [*dice.pick(&["=", "<", "<=", ">", ">="]), number]}),
        _ => json!({"numeric": [">", -1.25, "<=", number.as_f64().unwrap_or(0.0).abs() + 0.5]}),
    }
}

fn members(dice: &mut Dice, depth: u64) -> Make {
    let mut made: Vec<(String, Make)> = Vec::new();
    for _ in 0..=dice.roll(3) {
        let key = key(dice, true);
        if made.iter().any(|(other, _)| other == key) {
            continue;
        }
        let value = if depth > 0 && dice.one_in(2) {
            members(dice, depth - 1)
        } else {
            Make::Leaf((0..=dice.roll(2)).map(|_| rule(dice)).collect())
        };
        made.push((key.to_owned(), value));
    }
    if depth > 0 && dice.one_in(4) {
        let at = dice.roll(made.len() as u64 + 1) as usize;
        let count = 2 + dice.roll(2);
        let branches = (0..count).map(|_| members(dice, depth - 1));
        let branches = Make::Or(branches.collect());
        made.insert(at, ("$or".to_owned(), branches));
    }
    Make::All(made)
}

/// A payload's text: keys repeat, strings are escaped or not, white space stands anywhere.
fn payload(dice: &mut Dice, depth: u64, dotted: bool) -> String {
    let space = *dice.pick(&["", "", "", " ", "\n\t"]);
    let value = match dice.roll(if depth > 0 { 10 } else { 5 }) {
        0 => "null".to_owned(),
        1 => dice.pick(&["true", "false"]).to_string(),
        2 => dice.pick(&NUMBERS).to_string(),
        3 | 4 => {
            let text = *dice.pick(&TEXTS);
            quoted(dice, text)
        }
        5 | 6 => {
            let items: Vec<_> = (0..dice.roll(4))
                .map(|_| payload(dice, depth - 1, dotted))
                .collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let members = (0..dice.roll(5)).map(|_| {
                let key = key(dice, dotted);
                let key = quoted(dice, key);
                let value = payload(dice, depth - 1, dotted);
                format!("{key}{space}:{value}")
            });
            format!("{{{}{space}}}", members.collect::<Vec<_>>().join(","))
        }
    };
    format!("{space}{value}{space}")
}

/// A payload's text in the shape of a pattern, most of it matching.
fn fitting(dice: &mut Dice, pattern: &Make) -> String {
    let value = match pattern {
        Make::All(made) => {
            let mut members = Vec::new();
            fitting_members(dice, made, &mut members);
            if dice.one_in(6) && !members.is_empty() {
                // Once more, so that an earlier one does not count.
                let again = dice.pick(&members).0.clone();
                let value = payload(dice, 1, true);
                let at = dice.roll(members.len() as u64 + 1) as usize;
                members.insert(at, (again, value));
            }
            let members: Vec<_> = members
                .into_iter()
                .map(|(key, value)| format!("{}:{value}", quoted(dice, &key)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Make::Or(branches) => {
            let branch = dice.pick(branches).clone();
            fitting(dice, &branch)
        }
        Make::Leaf(rules) => {
            let rule = dice.pick(rules).clone();
            fitting_value(dice, &rule)
        }
    };
    if !dice.one_in(4) {
        return value;
    }
    let mut items = vec![value];
    for _ in 0..dice.roll(3) {
        let item = if dice.one_in(2) {
            fitting(dice, pattern)
        } else {
            payload(dice, 2, true)
        };
        let at = dice.roll(items.len() as u64 + 1) as usize;
        items.insert(at, item);
    }
    format!("[{}]", items.join(","))
}

fn fitting_members(dice: &mut Dice, made: &[(String, Make)], into: &mut Vec<(String, String)>) {
    for (key, value) in made {
        if dice.one_in(12) {
            continue;
        }
        match value {
            Make::Or(branches) => {
                let Make::All(made) = dice.pick(branches).clone() else {
                    panic!("a branch is an object");
                };
                fitting_members(dice, &made, into);
            }
            Make::Leaf(rules) if rules.iter().any(|rule| rule["exists"] == false) => {}
            _ => into.push((key.clone(), fitting(dice, value))),
        }
    }
}

fn fitting_value(dice: &mut Dice, rule: &Value) -> String {
    let wanted = rule.as_object().and_then(|rule| rule.iter().next());
    let value = match wanted {
        None => rule.clone(),
        Some((name, Value::String(text))) => match name.as_str() {
            "prefix" => json!(format!("{text}x")),
            "suffix" => json!(format!("x{text}")),
            "wildcard" => json!(text.replace('*', "yx")),
            _ => json!(text.to_uppercase()),
        },
        Some((_, Value::Array(terms))) => terms.last().cloned().unwrap_or_default(),
        Some(_) => return payload(dice, 0, true),
    };
    if dice.one_in(6) {
        payload(dice, 1, true)
    } else {
        value.to_string()
    }
}

fn quoted(dice: &mut Dice, text: &str) -> String {
    if !dice.one_in(5) {
        return Value::from(text).to_string();
    }
    let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
    format!("\"{}\"", units.collect::<String>())
}

/// Whether an object says one path with two keys while there are arrays: what is then in the same
/// element is decided more simply than the plain matcher does.
fn is_twofold(payload: &Value) -> bool {
    match payload {
        Value::Object(members) => {
            let mut heads: Vec<_> = members.keys().filter_map(|k| k.split('.').next()).collect();
            heads.sort_unstable();
            let several = heads.len();
            heads.dedup();
            several > heads.len() || members.values().any(is_twofold)
        }
        Value::Array(items) => items.iter().any(is_twofold),
        _ => false,
    }
}

#[test]
fn the_matcher_says_what_the_plain_matcher_says() {
    let (mut matched, mut compared, mut in_one_pass) = (0, 0, 0);
    for seed in 1..=1_000u64 {
        let dice = &mut Dice::new(seed);
        let patterns: Vec<_> = (0..=dice.roll(2))
            .map(|_| Make::All(vec![("data".to_owned(), members(dice, 2))]))
            .collect();
        let texts: Vec<_> = patterns.iter().map(Make::text).collect();
        let criteria = FilterCriteria::compile(&texts)
            .unwrap_or_else(|error| panic!("seed {seed}: {texts:?}: {error}"));
        for _ in 0..25 {
            let data = if dice.one_in(3) {
                let dotted = dice.one_in(3);
                payload(dice, 4, dotted)
            } else {
                let Make::All(members) = dice.pick(&patterns).clone() else {
                    panic!("a pattern is an object");
                };
                fitting(dice, &members[0].1)
            };
            let parsed: Value = serde_json::from_str(&data)
                .unwrap_or_else(|error| panic!("seed {seed}: {data}: {error}"));
            if is_twofold(&parsed) && data.contains('[') {
                continue;
            }
            let wanted = patterns.iter().any(|p| reference::matches(p, &parsed));
            let found = check(&criteria, "k", data.as_bytes());
            let wanted_verdict = if wanted {
                Verdict::Match
            } else {
                Verdict::NoMatch
            };
            assert_eq!(found, wanted_verdict, "seed {seed}: {texts:?} on {data}");
            let program = &criteria.0.programs[0];
            let read = stream::read(program, &data, &mut Hits::default(), &mut Budget::new());
            in_one_pass += usize::from(read.is_ok());
            compared += 1;
            matched += usize::from(wanted);
        }
    }
    assert!(compared > 20_000, "only {compared} payloads were compared");
    let share = matched * 100 / compared;
    assert!((20..80).contains(&share), "{share} % of payloads matched");
    let share = in_one_pass * 100 / compared;
    assert!(
        (20..95).contains(&share),
        "{share} % of payloads took one pass"
    );
}

#[test]
fn a_payload_is_json_exactly_if_serde_json_can_skip_it() {
    let criteria = compile(r#"{"data":{"a":[1],"b":{"c":["x"]}}}"#);
    let (mut good, mut bad) = (0, 0);
    for seed in 1..=30_000u64 {
        let dice = &mut Dice::new(seed);
        let mut data = payload(dice, 4, true).into_bytes();
        mutate(dice, &mut data);
        let text = std::str::from_utf8(&data).ok();
        let parsed = text.and_then(|t| serde_json::from_str::<serde::de::IgnoredAny>(t).ok());
        let found = check(&criteria, "k", &data) != Verdict::NotJson;
        let shown = String::from_utf8_lossy(&data);
        assert_eq!(found, parsed.is_some(), "seed {seed}: {shown}");
        *(if found { &mut good } else { &mut bad }) += 1;
    }
    assert!(good > 2_000 && bad > 2_000, "{good} good, {bad} bad");
}

#[test]
fn every_byte_at_every_place_of_a_string_is_judged_as_serde_json_judges_it() {
    let criteria = compile(r#"{"data":{"a":[{"exists":true}]}}"#);
    for (byte, at) in (0..128u8).flat_map(|byte| (0..20).map(move |at| (byte, at))) {
        for key in ["a", "b"] {
            let mut data = format!("{{\"{key}\":\"nineteen characters\"}}").into_bytes();
            data.insert(6 + at, byte);
            let good = serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok();
            let wanted = match (good, key) {
                (false, _) => Verdict::NotJson,
                (true, "a") => Verdict::Match,
                (true, _) => Verdict::NoMatch,
            };
            let shown = String::from_utf8_lossy(&data);
            assert_eq!(check(&criteria, "k", &data), wanted, "{shown}");
        }
    }
}

/// Cuts, changes and adds some bytes, most of them JSON's own.
fn mutate(dice: &mut Dice, data: &mut Vec<u8>) {
    const BYTES: &[u8] = b"{}[]:,\"\\u0019.-+eE truefalsn\n\x00\x1f\x7f\x80\xc3\xff/";
    for _ in 0..dice.roll(3) {
        let at = dice.roll(data.len() as u64 + 1) as usize;
        let byte = *dice.pick(BYTES);
        match dice.roll(4) {
            0 => data.truncate(at),
            1 => data.insert(at, byte),
            2 if at < data.len() => data[at] = byte,
            _ if at < data.len() => drop(data.remove(at)),
            _ => {}
        }
    }
}

#[test]
fn any_pattern_is_compiled_or_refused_with_a_reason() {
    let mut refused = 0;
    for seed in 1..=20_000u64 {
        let dice = &mut Dice::new(seed);
        let made = Make::All(vec![("data".to_owned(), members(dice, 2))]);
        let mut bytes = made.text().into_bytes();
        mutate(dice, &mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        match FilterCriteria::compile(&[&text]) {
            Ok(criteria) => drop((check(&criteria, "k", b"{\"a\":1}"), criteria.lint())),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().starts_with("filter 1, "), "{error}");
            }
        }
    }
    assert!(refused > 2_000, "only {refused} patterns were refused");
}

#[test]
fn any_bytes_are_a_payload_and_a_pattern_without_a_panic() {
    let criteria = compile(r#"{"data":{"a":[1],"b":{"c":["x"]}}}"#);
    for seed in 1..=20_000u64 {
        let dice = &mut Dice::new(seed);
        let alphabet = *dice.pick(&[
            &b"{}[]\":,\\ua1.e-"[..],
            b"\x00\x22\x5c\x7b\x80\xc3\xbc\xff",
        ]);
        let bytes: Vec<u8> = (0..dice.roll(40)).map(|_| *dice.pick(alphabet)).collect();
        let _ = check(&criteria, "k", &bytes);
        let _ = FilterCriteria::compile(&[String::from_utf8_lossy(&bytes)]);
    }
}

#[test]
fn the_largest_patterns_are_evaluated_whole() {
    // 512 fields in 4,096 characters: as many as there can be.
    let mut members = vec!["\"\":[1]".to_owned()];
    let names = (0x4e00..).filter_map(char::from_u32);
    members.extend(names.take(511).map(|name| format!("\"{name}\":[1]")));
    let pattern = format!("{{{}}}", members.join(","));
    assert_eq!(pattern.chars().count(), MAX_PATTERN_CHARS);
    assert_eq!(check(&compile(&pattern), "k", b""), Verdict::NoMatch);

    // Ten filters of 440 fields each, so that they need several programs; the last one decides.
    let wide = |value: usize| {
        let names = (0x4e00..).filter_map(char::from_u32).take(440);
        let members: Vec<_> = names.map(|name| format!("\"{name}\":[{value}]")).collect();
        format!("{{\"data\":{{{}}}}}", members.join(","))
    };
    let patterns: Vec<_> = (0..10).map(wide).collect();
    let criteria = FilterCriteria::compile(&patterns).expect("criteria");
    let record = |value: usize| {
        let names = (0x4e00..).filter_map(char::from_u32).take(440);
        let members: Vec<_> = names.map(|name| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    };
    for (value, wanted) in [
        (9, Verdict::Match),
        (4, Verdict::Match),
        (10, Verdict::NoMatch),
    ] {
        let found = check(&criteria, "k", record(value).as_bytes());
        assert_eq!(found, wanted, "{value}");
    }
    assert_eq!(check(&criteria, "k", b"{"), Verdict::NotJson);

    // A key of as many dots as fit, on both sides.
    let dots = ".".repeat(4_000);
    let criteria = compile(&format!("{{\"data\":{{\"{dots}\":[1]}}}}"));
    let data = format!("{{\"{dots}\":1}}");
    assert_eq!(check(&criteria, "k", data.as_bytes()), Verdict::Match);
}
