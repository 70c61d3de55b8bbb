;; tries: a response of JSON that nests a hundred thousand arrays
;; end: malformed answer: response is not JSON: EOF while parsing a list at line 1 column 100000
(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 32)
    (func (export "_start")
        (memory.fill (i32.const 0x1000) (i32.const 0x5b) (i32.const 100000))
        (i32.store (i32.const 0x100) (i32.const 0x1000)) (i32.store (i32.const 0x104) (i32.const 100000))
        (drop (call $write (i32.const 1) (i32.const 0x100) (i32.const 1) (i32.const 0x200)))))
