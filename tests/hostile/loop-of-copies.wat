;; tries: instructions that each move 60 MiB, so that it never gives its slice back
;; settings: {"timeout_seconds": 1, "fuel": 100000000, "fuel_per_record": 0}
;; end: out of fuel: all 100000000 units used
(memory (export "memory") 2000)
(func $attack (param i32 i32) (result i64)
    (loop $l (memory.copy (i32.const 0x10000) (i32.const 0x3d00000) (i32.const 0x3c00000)) (br $l))
    unreachable)
