;; tries: an error text with line ends and commands for a terminal, to forge the host's log
;; end: *[2J: FORGED line*
(data (i32.const 0x400) "SMA1\01\00\02\00\00\00\00\00\1c\00\00\00\1b[2J\nFORGED line\0d\nFORGED\07\00x")
(func $attack (param i32 i32) (result i64) (i64.const 0x000004000000002c))
