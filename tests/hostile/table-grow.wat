;; tries: to grow a table until there is no more
;; end: out of memory: 20001 asked, 20000 allowed
(table $t 1 funcref)
(func $attack (param i32 i32) (result i64)
    (loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable)
