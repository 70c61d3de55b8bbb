;; tries: ten thousand counter names at once, to fill the host's tables
;; counters: *=1 *
(func $attack (param i32 i32) (result i64) (local $i i32)
    (drop (call $progress (i32.const 0)))
    (loop $l
        (i32.store (i32.const 0x400) (i32.add (i32.const 0x20202020) (local.get $i)))
        (drop (call $counter (i32.const 0x400) (i32.const 4) (i64.const 1)))
        (local.set $i (i32.add (local.get $i) (i32.const 0x101)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 0x101000))))
    (i64.const 0x0000000800000010))
