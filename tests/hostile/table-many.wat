;; tries: five tables
;; deploy: 400 not_deployed: *
(table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref) (table 1 funcref)
(func $attack (param i32 i32) (result i64) unreachable)
