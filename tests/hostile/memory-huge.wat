;; tries: a module whose memory begins with 4 GiB
;; deploy: 400 not_deployed: *
(memory (export "memory") 65536)
(func $attack (param i32 i32) (result i64) unreachable)
