;; tries: one write of a thousand vectors, each of all its memory
;; settings: {"fuel": 50000000, "fuel_per_record": 0}
;; end: out of fuel: all 50000000 units used
(func $attack (param i32 i32) (result i64) (local $at i32)
    (local.set $at (i32.const 0x20000))
    (loop $l
        (i32.store offset=4 (local.get $at) (i32.const 0x200000))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $l (i32.lt_u (local.get $at) (i32.const 0x22000))))
    (loop $l (drop (call $write (i32.const 1) (i32.const 0x20000) (i32.const 1024) (i32.const 0x200))) (br $l))
    unreachable)
