;; tries: to read what lies behind its memory
;; end: trap: memory out of bounds
(func $attack (param i32 i32) (result i64) (i64.load offset=0xffffffff (i32.const -1)))
