;; tries: to be given somebody's memory
;; deploy: 400 not_deployed: import "shardmill" "memory" is not offered: *
(module
    (import "shardmill" "memory" (memory 1))
    (export "memory" (memory 0))
    (func (export "_start")))
