;; tries: a response of more than Lambda's 6 MB
;; end: response of 7340032 bytes, 6291556 allowed
(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 32)
    (func (export "_start") (local $i i32)
        (i32.store (i32.const 0x104) (i32.const 0x100000))
        (loop $l
            (drop (call $write (i32.const 1) (i32.const 0x100) (i32.const 1) (i32.const 0x200)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (i32.const 7))))))
