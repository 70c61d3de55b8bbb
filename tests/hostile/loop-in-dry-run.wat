;; tries: an endless loop in the dry run of its deploy
;; settings: {"fuel": 1000000}
;; deploy: 400 not_deployed: the dry run of an empty batch failed: out of fuel: all 1000000 units used
(func (export "shardmill_handle") (param i32 i32) (result i64) (loop $l (br $l)) unreachable)
