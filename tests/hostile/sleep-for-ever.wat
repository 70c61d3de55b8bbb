;; tries: to sleep for a century
;; settings: {"timeout_seconds": 1}
;; end: timed out after 1.* s, * fuel used
(func $attack (param i32 i32) (result i64)
    (i32.store (i32.const 0x110) (i32.const 1))
    (i64.store (i32.const 0x118) (i64.const 3153600000000000000))
    (drop (call $poll (i32.const 0x100) (i32.const 0x180) (i32.const 1) (i32.const 0x1f0)))
    unreachable)
