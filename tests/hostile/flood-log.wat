;; tries: to flood the host with logs
;; settings: {"fuel": 50000000, "fuel_per_record": 0}
;; end: out of fuel: all 50000000 units used
(func $attack (param i32 i32) (result i64)
    (memory.fill (i32.const 0x1000) (i32.const 0x61) (i32.const 0x1000))
    (loop $l (drop (call $log (i32.const 3) (i32.const 0x1000) (i32.const 0x1000))) (br $l)) unreachable)
