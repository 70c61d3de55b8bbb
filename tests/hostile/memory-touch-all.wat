;; tries: to take all the memory that it may have, and to touch every page of it
;; settings: {"memory_mib": 64}
;; counters: pages=3072
(func $attack (param i32 i32) (result i64) (local $at i32) (local $end i32)
    (drop (memory.grow (i32.const 992)))
    (call $must (memory.size) (i32.const 1024))
    (call $must (memory.grow (i32.const 1)) (i32.const -1))
    (local.set $at (i32.const 0x20000))
    (loop $l
        (i32.store (local.get $at) (i32.const 1))
        (local.set $at (i32.add (local.get $at) (i32.const 4096)))
        (br_if $l (i32.lt_u (local.get $at) (i32.const 0x4000000))))
    (i32.store (i32.const 0x400) (i32.const 0x65676170)) (i32.store8 (i32.const 0x404) (i32.const 0x73))
    (call $must (call $counter (i32.const 0x400) (i32.const 5) (i64.const 3072)) (i32.const 0))
    (i64.const 0x0000000800000010))
