;; tries: to take memory until there is no more
;; settings: {"memory_mib": 4}
;; end: out of memory: 4259840 asked, 4194304 allowed
(func $attack (param i32 i32) (result i64)
    (loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable)
