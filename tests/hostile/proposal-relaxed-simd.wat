;; tries: instructions whose result differs from machine to machine
;; deploy: 400 not_deployed: not a usable WebAssembly module: *relaxed SIMD*
(module (memory (export "memory") 1)
    (func (export "_start")
        (drop (f32x4.relaxed_madd (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0)))))
