;; tries: more bytes of state than a batch may write
;; settings: {"effects_mib": 1}
;; end: effects of 1048612 bytes, 1048576 allowed
(func $attack (param i32 i32) (result i64) (local $i i32)
    (drop (call $progress (i32.const 0)))
    (loop $l
        (i32.store (i32.const 0x400) (i32.add (i32.const 0x61616161) (local.get $i)))
        (call $must (call $set (i32.const 0x400) (i32.const 4) (i32.const 0x10000) (i32.const 0x40000)) (i32.const 0))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $l))
    unreachable)
