;; tries: a module whose memory begins with 4 GiB
;; deploy: 400 not_deployed: *memory has a minimum byte size of 4294967296 which exceeds the limit of 0x40000000 bytes
(memory (export "memory") 65536)
(func $attack (param i32 i32) (result i64) unreachable)
