;; tries: a handler of all modes at once
;; deploy: 400 not_deployed: shardmill_abi_v1 returned 0x7: *
(func (export "shardmill_abi_v1") (result i32) (i32.const 7))
(func $attack (param i32 i32) (result i64) unreachable)
