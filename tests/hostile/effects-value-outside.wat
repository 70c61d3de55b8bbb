;; tries: to have the host write a value outside of its memory
;; end: trap: memory out of bounds
(func $attack (param i32 i32) (result i64)
    (drop (call $progress (i32.const 0)))
    (drop (call $get (i32.const 8) (i32.const 4) (i32.const 0x1ffffc) (i32.const 0x7fffffff))) unreachable)
