//! A guest that looks for its neighbours: what it sees of time, chance and memory beside an idle
//! host must be what it sees beside a busy one, to the unit of fuel.

use serde_json::{Value, json};

use super::site::{ATTACKER, Site, VICTIM};

/// Reads clocks, sleeps, spins, takes randomness and memory, and counts what it found.
const PROBE: &str = r#"(module
    (import "shardmill" "counter_add" (func $counter (param i32 i32 i64) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 32)
    (data (i32.const 8) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
    (data (i32.const 0x400) "timecpu-memoryrandom")
    (func (export "shardmill_abi_v1") (result i32) (i32.const 2))
    (func (export "shardmill_prepare") (param i32) (result i32) (i32.const 0x10000))
    (func $now (result i64)
        (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 0x200)))
        (i64.load (i32.const 0x200)))
    (func (export "shardmill_handle") (param $ptr i32) (param i32) (result i64)
        (local $i i32) (local $from i64)
        (if (i32.eqz (i32.load offset=12 (local.get $ptr))) (then (return (i64.const 0x0000000800000010))))
        ;; A race between a spin and the clock, with a sleep in it.
        (local.set $from (call $now))
        (loop $l
            (drop (call $now))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 100000))))
        (i32.store (i32.const 0x110) (i32.const 1))
        (i64.store (i32.const 0x118) (i64.const 20000000))
        (drop (call $poll (i32.const 0x100) (i32.const 0x180) (i32.const 1) (i32.const 0x1f0)))
        (drop (call $counter (i32.const 0x400) (i32.const 4) (i64.sub (call $now) (local.get $from))))
        (drop (call $clock (i32.const 2) (i64.const 0) (i32.const 0x200)))
        (drop (call $counter (i32.const 0x404) (i32.const 4) (i64.load (i32.const 0x200))))
        (drop (call $counter (i32.const 0x408) (i32.const 6)
            (i64.extend_i32_s (memory.grow (i32.const 1000)))))
        (drop (call $random (i32.const 0x200) (i32.const 8)))
        (drop (call $counter (i32.const 0x40e) (i32.const 6) (i64.load (i32.const 0x200))))
        (i64.const 0x0000000800000010)))"#;

/// Invocations that spin beside the probe.
const SPINNERS: usize = 6;

pub(super) async fn sees_nothing(site: &Site) {
    let wasm = wat::parse_str(PROBE).unwrap();
    let path = "functions/probe?settings=%7B%22memory_mib%22%3A%2096%7D";
    let deployed = site.native(ATTACKER, "PUT", path, wasm).await;
    assert_eq!(deployed.told(), "200");
    let alone = look(site).await;
    let spin = event("spin");
    let spinners = async {
        let spin = || site.native(VICTIM, "POST", "functions/worker/invoke", spin.clone());
        let spun = futures_util::future::join_all((0..SPINNERS).map(|_| spin())).await;
        for answer in spun {
            assert_eq!(answer.json()["failure"]["cause"], "out_of_fuel");
        }
    };
    let beside = async { [look(site).await, look(site).await, look(site).await] };
    let ((), beside) = tokio::join!(spinners, beside);
    for seen in beside {
        assert_eq!(seen, alone);
    }
    let text = alone.to_string();
    assert!(
        text.contains("\"time\":120"),
        "its own steps and its own sleep: {text}"
    );
}

/// What the probe sees, and what the host tells of it but for how long it took.
async fn look(site: &Site) -> Value {
    let path = "functions/probe/invoke";
    let told = site.native(ATTACKER, "POST", path, event("x")).await;
    let told = told.json();
    assert_eq!(told["outcome"], "ok", "{told}");
    json!([
        told["effects"],
        told["fuel_used"],
        told["fuel_allowed"],
        told["memory_bytes"]
    ])
}

fn event(data: &str) -> String {
    let data = base64_simd::STANDARD.encode_to_string(data);
    json!({"Records": [{"kinesis": {"partitionKey": "k", "data": data}}]}).to_string()
}
