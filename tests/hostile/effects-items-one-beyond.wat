;; tries: one effect more than allowed
;; settings: {"effects": 100}
;; end: effects of 101 items, 100 allowed
(func $attack (param i32 i32) (result i64) (local $i i32)
    (drop (call $progress (i32.const 0)))
    (loop $l
        (i32.store (i32.const 0x400) (i32.add (i32.const 0x61616161) (local.get $i)))
        (call $must (call $counter (i32.const 0x400) (i32.const 1) (i64.const 1)) (i32.const 0))
        (call $must (call $emit (i32.const 0x400) (i32.const 1) (i32.const 0x400) (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 0))
        (br $l))
    unreachable)
