;; tries: to divide by zero
;; end: trap: integer divide by zero
(func $attack (param i32 i32) (result i64)
    (i64.extend_i32_u (i32.div_u (local.get 1) (i32.const 0))))
