;; tries: to have the host make a mebibyte of random bytes again and again
;; settings: {"fuel": 10000000, "fuel_per_record": 0}
;; end: out of fuel: all 10000000 units used
(func $attack (param i32 i32) (result i64)
    (loop $l (drop (call $random (i32.const 0) (i32.const 0x100000))) (br $l)) unreachable)
