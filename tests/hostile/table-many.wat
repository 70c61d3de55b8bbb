;; tries: five tables
;; deploy: 400 not_deployed: *tables count of 5 exceeds the per-instance limit of 4
(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)
(func $attack (param i32 i32) (result i64) unreachable)
