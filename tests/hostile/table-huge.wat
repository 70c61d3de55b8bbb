;; tries: a module whose table begins with ten million elements
;; deploy: 400 not_deployed: *a minimum element size of 10000000 which exceeds the limit of 20000
(table 10000000 funcref)
(func $attack (param i32 i32) (result i64) unreachable)
