;; tries: a data segment outside of memory
;; deploy: 400 not_deployed: shardmill_abi_v1 failed: trap: memory out of bounds
(data (i32.const -4) "beyond the end")
(func $attack (param i32 i32) (result i64) unreachable)
