;; tries: a chain reaction: it emits two records into the stream that it reads for each of its own
;; stream: own
;; settings: {"fuel": 100000000}
;; end: *
(data (i32.const 0x400) "emit-doubles")
(func $attack (param $ptr i32) (param i32) (result i64) (local $i i32)
    (loop $l
        (drop (call $progress (local.get $i)))
        (call $must (call $emit (i32.const 0x400) (i32.const 12) (i32.const 0x400) (i32.const 4) (i32.const 0) (i32.const 0)) (i32.const 0))
        (call $must (call $emit (i32.const 0x400) (i32.const 12) (i32.const 0x400) (i32.const 4) (i32.const 0) (i32.const 0)) (i32.const 0))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.load offset=12 (local.get $ptr)))))
    (i64.const 0x0000000800000010))
