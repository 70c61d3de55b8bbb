;; tries: to recurse without end
;; end: trap: stack overflow
(func $attack (param i32 i32) (result i64) (call $attack (local.get 0) (local.get 1)))
