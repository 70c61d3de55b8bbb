;; tries: to spend the host's time in calls that are free
;; settings: {"fuel": 1000000, "fuel_per_record": 0}
;; end: out of fuel: all 1000000 units used
(func $attack (param i32 i32) (result i64)
    (loop $l (drop (call $progress (i32.const 0))) (br $l)) unreachable)
