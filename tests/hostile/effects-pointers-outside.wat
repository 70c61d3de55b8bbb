;; tries: to have the host read a name from outside of its memory
;; end: trap: memory out of bounds
(func $attack (param i32 i32) (result i64)
    (drop (call $counter (i32.const -4) (i32.const 8) (i64.const 1))) unreachable)
