;; tries: an endless loop where the host asks for room
;; settings: {"fuel": 1000000}
;; deploy: 400 not_deployed: the dry run of an empty batch failed: out of fuel: all 1000000 units used
(func (export "shardmill_prepare") (param i32) (result i32) (loop $l (br $l)) unreachable)
(func $attack (param i32 i32) (result i64) unreachable)
