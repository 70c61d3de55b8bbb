;; tries: a record-mode handler that says all is well and has seen no record
;; mode: record
;; end: malformed answer: answered ok after progress through 0 records
(func $attack (param i32 i32) (result i64) (i64.const 0x0000000800000010))
