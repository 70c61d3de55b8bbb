;; tries: to call an element of a table that is not there
;; end: trap: uninitialized element
(table $t 1 funcref)
(func $attack (param i32 i32) (result i64) (call_indirect (result i64) (i32.const 0)))
