;; tries: a handler without a memory
;; deploy: 400 not_deployed: module must export its memory, 32-bit and not shared, as "memory"
(module
    (func (export "shardmill_abi_v1") (result i32) (i32.const 2))
    (func (export "shardmill_prepare") (param i32) (result i32) (i32.const 0))
    (func (export "shardmill_handle") (param i32 i32) (result i64) (i64.const 0)))
