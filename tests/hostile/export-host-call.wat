;; tries: to have the host call its own function as the handler's
;; deploy: 400 not_deployed: the dry run of an empty batch failed: malformed answer: shardmill_prepare(*) returned 0xfffffffe, *
(module
    (import "shardmill" "progress" (func $progress (param i32) (result i32)))
    (memory (export "memory") 32)
    (export "shardmill_prepare" (func $progress))
    (func (export "shardmill_abi_v1") (result i32) (i32.const 2))
    (func (export "shardmill_handle") (param i32 i32) (result i64) (i64.const 0)))
