;; tries: a memory that is shared with other threads
;; deploy: 400 not_deployed: not a usable WebAssembly module: *threads*
(module (memory (export "memory") 1 1 shared) (func (export "_start")))
