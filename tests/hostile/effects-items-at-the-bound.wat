;; tries: as many effects as are allowed
;; settings: {"effects": 100}
;; counters: aaaaaaaa=100
(func $attack (param i32 i32) (result i64) (local $i i32)
    (memory.fill (i32.const 0x400) (i32.const 0x61) (i32.const 128))
    (drop (call $progress (i32.const 0)))
    (loop $l
        (call $must (call $counter (i32.const 0x400) (i32.const 8) (i64.const 1)) (i32.const 0))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 100))))
    (i64.const 0x0000000800000010))
