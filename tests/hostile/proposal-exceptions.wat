;; tries: exceptions
;; deploy: 400 not_deployed: not a usable WebAssembly module: *exceptions*
(module (tag $t) (memory (export "memory") 1) (func (export "_start") (throw $t)))
