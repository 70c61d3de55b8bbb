;; tries: two memories
;; deploy: 400 not_deployed: not a usable WebAssembly module: *multi*memor*
(module (memory (export "memory") 1) (memory 1) (func (export "_start")))
