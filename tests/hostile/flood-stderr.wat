;; tries: to flood the host with standard error, lines and commands for a terminal
;; settings: {"fuel": 50000000, "fuel_per_record": 0}
;; end: out of fuel: all 50000000 units used
(data (i32.const 0x400) "\1b[2J\nFORGED line\n")
(func $attack (param i32 i32) (result i64)
    (i32.store (i32.const 0x100) (i32.const 0x400)) (i32.store (i32.const 0x104) (i32.const 17))
    (loop $l (drop (call $write (i32.const 2) (i32.const 0x100) (i32.const 1) (i32.const 0x200))) (br $l))
    unreachable)
