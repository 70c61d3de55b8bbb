;; tries: a module whose memory begins above what its function may have
;; settings: {"memory_mib": 1}
;; deploy: 400 not_deployed: the dry run of an empty batch failed: out of memory: 2097152 asked, 1048576 allowed
(func $attack (param i32 i32) (result i64) unreachable)
