;; tries: to end its process as if all were well
;; end: the handler exited with code 0
(func $attack (param i32 i32) (result i64) (call $exit (i32.const 0)) unreachable)
