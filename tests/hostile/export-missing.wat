;; tries: half of the handler's exports
;; deploy: 400 not_deployed: module must export shardmill_prepare: (i32) -> (i32)
(module (memory (export "memory") 1) (func (export "shardmill_abi_v1") (result i32) (i32.const 2)))
