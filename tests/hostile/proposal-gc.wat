;; tries: structures that somebody else collects
;; deploy: 400 not_deployed: not a usable WebAssembly module: *gc*
(module (type (struct (field i32))) (memory (export "memory") 1) (func (export "_start")))
