;; tries: instructions that each write 100 MiB, so that it never gives its slice back
;; settings: {"timeout_seconds": 1, "fuel": 100000000, "fuel_per_record": 0}
;; end: out of fuel: all 100000000 units used
(memory (export "memory") 2000)
(func $attack (param i32 i32) (result i64)
    (loop $l (memory.fill (i32.const 0x10000) (i32.const 7) (i32.const 0x6400000)) (br $l)) unreachable)
