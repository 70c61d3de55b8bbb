;; tries: to import a socket that preview 1 does not know
;; deploy: 400 not_deployed: import "wasi_snapshot_preview1" "sock_connect" is not offered: *
(module
    (import "wasi_snapshot_preview1" "sock_connect" (func (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")))
