;; tries: an endless loop
;; settings: {"fuel": 1000000, "fuel_per_record": 0}
;; end: out of fuel: all 1000000 units used
(func $attack (param i32 i32) (result i64) (loop $l (br $l)) unreachable)
