//! What is wrong with a file, and in which line.

use std::path::Path;

use crate::scenario::Scenario;

const FUNCTION: &str = "[function]\nwasm = \"record.wasm\"\n";

/// What is said of a file that begins with two good lines.
fn refused(rest: &str) -> String {
    let text = format!("{FUNCTION}{rest}");
    let parsed = Scenario::parse(&text, Path::new("s.toml"), Path::new("/"), None);
    parsed.expect_err(rest).to_string()
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_is_possible() {
    for (rest, want) in [
        ("[[stpe]]", "3: unknown key `stpe`: did you mean `step`?"),
        (
            "[[step]]\nputs = []",
            "4: unknown key `puts`: did you mean `put`?",
        ),
        (
            "[mapping]\nbatch_sise = 1",
            "4: unknown key `batch_sise`: did you mean `batch_size`?",
        ),
        (
            "[mapping]\nstream = \"in\"\nbatch_size = 0",
            "5: mapping \"mapping\": batch_size = 0: 1 to 10000 records expected",
        ),
        (
            "timeout_seconds = 1000",
            "3: function \"handler\": timeout_seconds = 1000: 1 to 900 seconds expected",
        ),
        (
            "[[stream]]\nname = \"a\"\nshards = 1\n[[stream]]\nname = \"b\"\nshards = 0",
            "8: stream \"b\": shards = 0: 1 to 10000 expected",
        ),
        (
            "[mapping]\nstream = \"out\"",
            "3: stream \"out\": one of in expected",
        ),
        (
            "account = \"123456789012\"",
            "1: account and region: leave them out, a scenario has one of each",
        ),
        (
            "[mapping]\nbatch_size = 1\non_failure = \"sqs:q\"",
            "5: on_failure: leave it out, a scenario reports to nobody; `failures` expects what \
             would be reported",
        ),
        (
            "[[step]]\nwait = \"5 minutes\"",
            "4: wait = \"5 minutes\": a span of time expected, as 250ms, 90s, 1h30m or 7d, at most 365d",
        ),
        (
            "[[step]]\nwait = \"5m\"\ndrain = \"5m\"",
            "3: a step does one thing: make a step of `wait` and one of `drain`",
        ),
        (
            "[[step]]\nname = \"idle\"",
            "3: the step does nothing: one of put, wait, drain, do, deploy, unpark, split, merge, at, expect expected",
        ),
        (
            "[[step]]\ndo = \"stop\"",
            "4: do \"stop\": one of pause, resume, restart, kill expected",
        ),
        (
            "[[step]]\nat = \"2h\"\n[[step]]\nat = \"1h\"",
            "5: at = \"1h\": it is over, the time before it is 2h",
        ),
        (
            "[[step]]\nput = [\n  { key = \"a\", data = \"ok\" },\n  { key = \"a\" },\n]",
            "6: the record has no data: one of data, json, hex, base64, lines expected",
        ),
        (
            "[[step]]\nput = [{ key = \"a\", dat = \"ok\" }]",
            "4: unknown key `dat`: did you mean `data`?",
        ),
        (
            "[[step]]\nput = [{ data = \"ok\" }]",
            "4: key is missing: a partition key expected",
        ),
        (
            "[[step]]\nput = [{ key = \"a\", hex = \"0\" }]",
            "4: hex = \"0\": pairs of hexadecimal digits expected",
        ),
        (
            "[[step]]\nput = [{ lines = \"none\", key = \"a\" }]",
            "4: read /none: No such file or directory (os error 2)",
        ),
        (
            "[[step]]\nput = [{ key = \"a\", json = { at = 2026-01-01 } }]",
            "4: JSON has no dates: write \"2026-01-01\" as a text",
        ),
        (
            "[expect]\ninvocation = 1",
            "4: unknown key `invocation`: did you mean `invocations`?",
        ),
        (
            "[expect]\ninvocations = \"1\"",
            "4: a number, or { at_least = N, at_most = N }, expected",
        ),
        (
            "[expect]\nall_records = \"doen\"",
            "4: outcome \"doen\": did you mean \"done\"?",
        ),
        (
            "[expect]\nrecords = { a = \"given_up: Expird\" }",
            "4: reason \"Expird\": did you mean \"Expired\"?",
        ),
        (
            "[expect]\nfailures = [\n  { cause = \"panic\" },\n]",
            "5: cause \"panic\": one of handler_error, trap, out_of_fuel, timed_out, out_of_memory, \
             exited, effects_exceeded, response_too_large, bad_answer, effects_refused expected",
        ),
        (
            "[expect.state]\na = { n = { txt = \"1\" } }",
            "4: unknown key `txt`: possible are text, json, hex, base64; a JSON object is written \
             { json = { … } }",
        ),
        (
            "[expect]\nwindows_closed = { at_least = 2, at_most = 1 }",
            "4: windows_closed: no number is at least 2 and at most 1",
        ),
        (
            "[[step]]\nwait = \"1s\"",
            "1: nothing is expected: a table [expect], at the end or of a step, expected",
        ),
        ("[expect]", "3: expect is empty: an expectation expected"),
        (
            "[[step]]\nwait = \"1s\"\nexpect = { counters = {} }\n[expect]\ninvocations = 1",
            "5: expect is empty: an expectation expected",
        ),
        (
            "[expect]\ninvocations = {}",
            "4: invocations: every number is that: at_least or at_most expected",
        ),
        (
            "[expect]\noutcomes = { done = { at_least = 0 } }",
            "4: outcomes.done: every number is that: at_least or at_most expected",
        ),
        (
            "[expect]\nabsent_state = { a = [] }",
            "4: absent_state.\"a\": at least one name expected",
        ),
        (
            "[expect]\nno_other_state = false",
            "4: no_other_state = false: leave it out",
        ),
        (
            "[[stream]]\nname = \"out\"\nshards = 1\n[expect]\nemitted = { ouf = [] }",
            "7: emitted.ouf: stream \"ouf\": did you mean \"out\"?",
        ),
        (
            "[expect]\nemitted_counts = { out = 1 }",
            "4: emitted_counts.out: stream \"out\": one of in expected",
        ),
    ] {
        assert_eq!(refused(rest), format!("s.toml:{want}"), "{rest}");
    }
}

#[test]
fn a_file_without_a_function_says_so() {
    let parsed = Scenario::parse("", Path::new("s.toml"), Path::new("/"), None);
    let error = parsed.expect_err("an empty file").to_string();
    assert_eq!(
        error,
        "s.toml:1: [function] is missing: the handler's module expected, as wasm = \"f.wasm\""
    );
}
