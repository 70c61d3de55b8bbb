;; tries: an endless loop in the start function, which runs before any export
;; deploy: 400 not_deployed: shardmill_abi_v1 failed: out of fuel: all 100000000 units used
(start $s)
(func $s (loop $l (br $l)))
(func $attack (param i32 i32) (result i64) unreachable)
