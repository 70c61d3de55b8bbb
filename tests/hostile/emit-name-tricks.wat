;; tries: a stream's name with a path, a NUL, a line end and commands for a terminal
;; end: effects refused: stream ../000000000001/results*does not exist: create it, then redrive
(data (i32.const 0x400) "../000000000001/results\00\nFORGED line\1b[2J")
(func $attack (param i32 i32) (result i64)
    (call $must (call $emit (i32.const 0x400) (i32.const 40) (i32.const 0x400) (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 0))
    (i64.const 0x0000000800000010))
