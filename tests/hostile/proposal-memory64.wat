;; tries: a memory of 64 bits
;; deploy: 400 not_deployed: not a usable WebAssembly module: *memory64*
(module (memory (export "memory") i64 1) (func (export "_start")))
