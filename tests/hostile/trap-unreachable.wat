;; tries: an instruction that must not be reached
;; end: trap: unreachable
(func $attack (param i32 i32) (result i64) unreachable)
