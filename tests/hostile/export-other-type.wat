;; tries: exports of other types than they should have
;; deploy: 400 not_deployed: module must export shardmill_handle: (i32, i32) -> (i64)
(func (export "shardmill_handle") (param i64) (result i32) (i32.const 0))
(func $attack (param i32 i32) (result i64) unreachable)
