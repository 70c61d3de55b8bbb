;; tries: to import a function that some other host offers
;; deploy: 400 not_deployed: import "env" "system" is not offered: *
(module
    (import "env" "system" (func (param i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")))
