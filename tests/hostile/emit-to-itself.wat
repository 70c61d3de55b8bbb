;; tries: a loop: it emits into the stream that it reads, for each record one
;; stream: own
;; end: effects refused: loop: the record was emitted 16 times on its way to emit-to-itself
(data (i32.const 0x400) "emit-to-itself")
(func $attack (param $ptr i32) (param i32) (result i64) (local $i i32)
    (loop $l
        (drop (call $progress (local.get $i)))
        (call $must (call $emit (i32.const 0x400) (i32.const 14) (i32.const 0x400) (i32.const 4) (i32.const 0) (i32.const 0)) (i32.const 0))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.load offset=12 (local.get $ptr)))))
    (i64.const 0x0000000800000010))
