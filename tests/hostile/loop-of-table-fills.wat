;; tries: instructions that each fill a table
;; settings: {"timeout_seconds": 1, "fuel": 10000000, "fuel_per_record": 0}
;; end: out of fuel: all 10000000 units used
(table $t 20000 funcref)
(func $attack (param i32 i32) (result i64)
    (loop $l (table.fill $t (i32.const 0) (ref.null func) (i32.const 20000)) (br $l)) unreachable)
