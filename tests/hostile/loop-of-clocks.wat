;; tries: to spend the host's time in readings of the clock
;; settings: {"fuel": 1000000, "fuel_per_record": 0}
;; end: out of fuel: all 1000000 units used
(func $attack (param i32 i32) (result i64)
    (loop $l (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 256))) (br $l)) unreachable)
