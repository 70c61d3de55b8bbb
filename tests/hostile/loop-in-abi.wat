;; tries: an endless loop where the host asks what the module is
;; deploy: 400 not_deployed: shardmill_abi_v1 failed: out of fuel: all 100000000 units used
(func (export "shardmill_abi_v1") (result i32) (loop $l (br $l)) unreachable)
(func $attack (param i32 i32) (result i64) unreachable)
