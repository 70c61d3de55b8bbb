;; tries: a module whose table begins with ten million elements
;; deploy: 400 not_deployed: *
(table 10000000 funcref)
(func $attack (param i32 i32) (result i64) unreachable)
