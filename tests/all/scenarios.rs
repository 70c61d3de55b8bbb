//! The scenarios of the project's handlers, run by the command as a user runs it, on the real
//! sandbox.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::host::guest;

const HANDLERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../handlers");

/// `shardmill test` on `path`: whether it exits with 0, what it prints.
fn test(path: &str, json: bool) -> (Option<i32>, String) {
    let modules = guest("poison");
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardmill"));
    command.args(["test", path, "--modules"]);
    command.arg(modules.parent().unwrap_or(Path::new(".")));
    command.args(json.then_some("--json"));
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}

#[test]
fn the_handlers_scenarios_pass_and_two_runs_are_alike_to_the_unit_of_fuel() {
    let (code, text) = test(HANDLERS, false);
    assert_eq!(code, Some(0), "{text}");
    let (code, first) = test(HANDLERS, true);
    assert_eq!(code, Some(0), "{first}");
    let (_, second) = test(HANDLERS, true);
    let without_millis = |text: &str| {
        let mut value: Value = serde_json::from_str(text).unwrap();
        for scenario in value["scenarios"].as_array_mut().unwrap() {
            scenario.as_object_mut().unwrap().remove("millis");
            assert!(scenario["fuel"].as_u64() > Some(0), "{scenario}");
        }
        value
    };
    assert_eq!(without_millis(&first), without_millis(&second));
}

#[test]
fn a_scenario_that_fails_exits_with_1_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[function]\nwasm = \"poison.wasm\"\n[[step]]\nput = [{ key = \"a\", data = \"ok\" }]\n\
                [expect]\ncounters = { done = 2 }\n";
    std::fs::write(folder.path().join("one.toml"), text).unwrap();
    std::fs::write(folder.path().join("two.toml"), "[expects]").unwrap();
    let (code, text) = test(&folder.path().display().to_string(), false);
    assert_eq!(code, Some(1));
    for part in [
        "FAIL  one (",
        "6     end: counters.done  2         1",
        "two.toml:1: unknown key `expects`: did you mean `expect`?",
        "2 scenarios: 0 passed, 2 failed",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}
