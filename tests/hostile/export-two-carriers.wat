;; tries: to be a handler of two kinds
;; deploy: 400 not_deployed: module exports both shardmill_* and _start: *
(module (memory (export "memory") 1) (func (export "_start"))
    (func (export "shardmill_abi_v1") (result i32) (i32.const 2)))
