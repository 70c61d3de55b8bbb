;; tries: to call a function as if it had another type
;; end: trap: indirect call type mismatch
(table $t 1 funcref)
(elem (i32.const 0) $other)
(func $other (param f64) (result f64) (local.get 0))
(type $lie (func (param i32 i32) (result i64)))
(func $attack (param i32 i32) (result i64)
    (call_indirect (type $lie) (local.get 0) (local.get 1) (i32.const 0)))
