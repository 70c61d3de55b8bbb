;; tries: to import a host call as if it had another type
;; deploy: 400 not_deployed: incompatible import type for `shardmill::progress`: *
(module
    (import "shardmill" "progress" (func (param i64 i64 i64) (result f64)))
    (memory (export "memory") 1)
    (func (export "_start")))
