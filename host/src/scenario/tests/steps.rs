//! What steps do.

use super::{passes, run};

#[test]
fn a_paused_mapping_takes_nothing_until_it_is_resumed() {
    passes(
        r#"
        [function]
        wasm = "record.wasm"
        [[step]]
        do = "pause"
        [[step]]
        put = [{ key = "a", data = "count seen", repeat = 2 }]
        [[step]]
        wait = "1h"
        expect = { outcomes = { waiting = 2 }, invocations = 0 }
        [[step]]
        name = "a restart leaves it paused"
        do = "restart"
        [[step]]
        wait = "1h"
        expect = { invocations = 0 }
        [[step]]
        do = "resume"
        expect = { counters = { seen = 2 }, all_records = "done" }
        "#,
    );
}

#[test]
fn a_shard_that_stands_still_goes_on_with_a_mended_module() {
    let text = r#"
        [function]
        wasm = "record.wasm"
        [mapping]
        maximum_retry_attempts = 1
        on_exhausted = "pause"
        [[step]]
        put = [{ key = "a", data = "error" }, { key = "b", data = "count seen" }]
        [[step]]
        wait = "1m"
        expect = { outcomes = { waiting = 2 }, failures = [] }
        [[step]]
        MEND
        [[step]]
        drain = "10s"
        [expect]
        all_records = "done"
        counters = { seen = 1 }
    "#;
    passes(&text.replace("MEND", "deploy = \"mended.wasm\""));
    let text = run(&text.replace("MEND", "do = \"resume\"")).text();
    assert!(
        text.contains("is paused: attempts ended: Bad: it says error"),
        "{text}"
    );
}

#[test]
fn records_come_at_their_times_and_with_the_lines_of_a_file() {
    passes(
        r#"
        start = 2100-01-01T00:00:00Z
        [function]
        wasm = "batch.wasm"
        [mapping]
        batching_window_seconds = 60
        [[step]]
        put = [
            { key = "a", data = "ok" },
            { key = "a", data = "ok", at = "30s" },
            { key = "a", data = "ok", at = "2m" },
        ]
        expect = { invocations = 1, outcomes = { done = 2, waiting = 1 } }
        [[step]]
        at = "1h"
        put = [{ name = "lines", lines = "lines", key_regex = '(\w+)$' }]
        [[step]]
        drain = "2m"
        [expect]
        outcomes = { done = 5, "given_up: RetryAttemptsExhausted" = 1 }
        failures = [{ cause = "handler_error", records = 1, message = "it says" }]
        "#,
    );
}

#[test]
fn a_sleeping_handler_takes_simulated_time_and_a_kill_cuts_it_off() {
    passes(
        r#"
        [function]
        wasm = "record.wasm"
        [[step]]
        put = [{ name = "sleeper", key = "a", data = "sleep 3600000" }]
        expect = { records = { sleeper = "waiting" } }
        [[step]]
        at = "30m"
        do = "kill"
        [[step]]
        at = "1h10m"
        expect = { records = { sleeper = "waiting" }, invocations = 2 }
        [[step]]
        at = "1h31m"
        expect = { records = { sleeper = "done" }, invocations = 2 }
        "#,
    );
}

#[test]
fn parked_keys_wait_until_they_are_let_go_on() {
    passes(
        r#"
        [function]
        wasm = "record.wasm"
        [mapping]
        maximum_retry_attempts = 0
        on_exhausted = "park"
        [[step]]
        put = [
            { key = "a", data = "error" },
            { key = "a", data = "count seen" },
            { key = "b", data = "error" },
        ]
        [[step]]
        drain = "10s"
        expect = { all_records = "parked", parked_keys = ["b", "a"] }
        [[step]]
        deploy = "mended.wasm"
        [[step]]
        unpark = ["a"]
        [[step]]
        drain = "10s"
        expect = { outcomes = { done = 2, parked = 1 }, parked_keys = ["b"] }
        [[step]]
        unpark = []
        [[step]]
        drain = "10s"
        [expect]
        all_records = "done"
        counters = { seen = 1 }
        "#,
    );
}

#[test]
fn a_mapping_follows_shards_through_a_split_and_a_merge() {
    let text = r#"
        [function]
        wasm = "record.wasm"
        [[step]]
        put = [{ key = "a", data = "state n", repeat = 3 }, { key = "b", data = "state n" }]
        [[step]]
        split = 0
        [[step]]
        at = "10s"
        put = [{ key = "a", data = "state n", repeat = 3 }, { key = "b", data = "state n" }]
        [[step]]
        at = "20s"
        merge = [1, 2]
        [[step]]
        at = "30s"
        put = [{ key = "a", data = "state n", repeat = 3 }, { key = "b", data = "state n" }]
        [[step]]
        drain = "10s"
        [expect]
        outcomes = { done = 12 }
        state = { a = { n = 9 }, b = { n = 3 } }
    "#;
    passes(text);
    let again = run(&text.replace("merge = [1, 2]", "split = 0"));
    let found = &again.mismatches[0].found;
    assert!(found.contains("was split or merged before"), "{found}");
}

#[test]
fn windows_are_counted_when_their_final_invocation_has_ended_well() {
    passes(
        r#"
        [function]
        wasm = "batch.wasm"
        [mapping]
        tumbling_window_seconds = 60
        [[step]]
        put = [{ key = "a", data = "ok" }]
        expect = { windows_closed = 0 }
        [[step]]
        at = "3m"
        put = [{ key = "a", data = "ok" }]
        expect = { windows_closed = 1 }
        [[step]]
        wait = "10m"
        expect = { windows_closed = 2, invocations = 4 }
        "#,
    );
}

#[test]
fn what_retention_takes_is_given_up_as_expired() {
    passes(
        r#"
        [function]
        wasm = "record.wasm"
        [[step]]
        do = "pause"
        [[step]]
        put = [{ key = "a", data = "ok", repeat = 3 }]
        [[step]]
        at = "25h"
        put = [{ name = "fresh", key = "a", data = "ok" }]
        [[step]]
        do = "resume"
        [[step]]
        drain = "10s"
        [expect]
        all_records = "given_up: Expired"
        records = { fresh = "done" }
        failures = [{ reason = "Expired", records = 3 }]
        "#,
    );
}

#[test]
fn what_cannot_be_done_ends_the_scenario_with_its_reason() {
    for (text, line, place, found) in [
        (
            "[function]\nwasm = \"none.wasm\"\n[expect]\ninvocations = 0",
            1,
            "set-up",
            "none.wasm: No such file",
        ),
        (
            "[function]\nwasm = \"record.wasm\"\n[[step]]\nwait = \"1h\"\n[[step]]\nat = \"5m\"\n\
             [expect]\ninvocations = 7",
            5,
            "step 2",
            "at = \"5m\" is over: 1h",
        ),
        (
            "[function]\nwasm = \"record.wasm\"\n[[step]]\nwait = \"500ms\"\n[[step]]\n\
             at = \"490ms\"\n[expect]\ninvocations = 0",
            5,
            "step 2",
            "at = \"490ms\" is over: 502ms",
        ),
        (
            "[function]\nwasm = \"record.wasm\"\n[[step]]\nunpark = [\"a\"]\n[expect]\ninvocations = 0",
            3,
            "step 1",
            "key \"a\" is not parked",
        ),
    ] {
        let report = run(text);
        let [mismatch] = &report.mismatches[..] else {
            panic!("{}", report.text());
        };
        assert_eq!(
            (mismatch.line, mismatch.expectation.as_str()),
            (line, place)
        );
        assert!(mismatch.found.contains(found), "{}", mismatch.found);
    }
}

#[test]
fn the_moments_that_steps_take_are_not_too_late() {
    passes(
        r#"
        [function]
        wasm = "record.wasm"
        [[step]]
        at = "10s"
        put = [{ key = "a", data = "ok" }, { key = "a", data = "ok", at = "10s" }]
        [[step]]
        at = "10s"
        put = [{ key = "a", data = "ok" }]
        [[step]]
        wait = "5s"
        [[step]]
        at = "15s"
        expect = { all_records = "done" }
        "#,
    );
}

#[test]
fn what_has_become_of_records_is_known_when_they_are_long_trimmed() {
    // Records were trimmed after a day, so that what handlers had put was gone and what was
    // filtered out was taken for done; entries of the failure store went after 30 days.
    passes(
        r#"
        [function]
        wasm = "record.wasm"
        [[stream]]
        name = "in"
        shards = 1
        [[stream]]
        name = "out"
        shards = 1
        [mapping]
        maximum_retry_attempts = 0
        filters = ['{"partitionKey": [{"anything-but": "dull"}]}']
        [[step]]
        put = [
            { name = "left", key = "dull", data = "ok" },
            { name = "sent", key = "a", data = "emit out hello" },
            { name = "bad", key = "a", data = "error" },
        ]
        [[step]]
        wait = "40d"
        [[step]]
        put = [{ key = "a", data = "emit out again" }]
        [[step]]
        drain = "60d"
        [[step]]
        wait = "40d"
        [expect]
        records = { left = "filtered", sent = "done", bad = "given_up: RetryAttemptsExhausted" }
        emitted = { out = [{ data = "hello" }, { data = "again" }] }
        failures = [{ reason = "RetryAttemptsExhausted" }]
        "#,
    );
}

#[test]
fn errors_are_those_that_the_mapping_sees_also_before_a_restart() {
    // The sandbox has nothing against an emit to a stream that is not there.
    passes(
        r#"
        [function]
        wasm = "record.wasm"
        [mapping]
        maximum_retry_attempts = 1
        [[step]]
        put = [{ key = "a", data = "emit nowhere x" }]
        [[step]]
        drain = "10s"
        expect = { function_errors = 2, failures = [{ cause = "effects_refused" }] }
        [[step]]
        do = "restart"
        [[step]]
        put = [{ key = "a", data = "error" }]
        [[step]]
        drain = "10s"
        [expect]
        function_errors = 4
        "#,
    );
}

#[test]
fn a_window_is_not_closed_by_a_final_invocation_whose_effects_are_refused() {
    let text = r#"
        [function]
        wasm = "batch.wasm"
        [[stream]]
        name = "in"
        shards = 1
        [[stream]]
        name = "out"
        shards = 1
        [mapping]
        tumbling_window_seconds = 60
        maximum_retry_attempts = 1
        [[step]]
        put = [{ key = "a", data = "finally out" }]
        [[step]]
        wait = "3m"
        [expect]
        windows_closed = 1
        function_errors = 0
        emitted = { out = [{ key = "window", data = "closed" }] }
    "#;
    passes(text);
    let refused = text.replace("finally out", "finally nowhere");
    let refused = refused.replace("windows_closed = 1", "windows_closed = 0");
    let refused = refused.replace("function_errors = 0", "function_errors = 2");
    passes(&refused.replace("[{ key = \"window\", data = \"closed\" }]", "[]"));
}

#[test]
fn expectations_about_nothing_fail() {
    let report = run(r#"
        [function]
        wasm = "record.wasm"
        [[step]]
        expect = { max_fuel_per_record = 1000, max_fuel_per_invocation = 1000, all_records = "done" }
        [[step]]
        put = [{ name = "a", key = "a", data = "ok" }]
        [[step]]
        drain = "1s"
        expect = { records = { a = "done" }, all_records = "done" }
    "#);
    let found: Vec<&str> = report.mismatches.iter().map(|m| &*m.found).collect();
    let nothing = "no record was put that has no name here";
    assert_eq!(found, ["no invocation", "no invocation", nothing, nothing]);
}
