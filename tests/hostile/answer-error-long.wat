;; tries: an error text of nearly a megabyte
;; end: aaaaaaaa*:*
(data (i32.const 0x400) "SMA1\01\00\02\00\00\00\00\00\00\00\0f\00")
(func $attack (param i32 i32) (result i64)
    (memory.fill (i32.const 0x410) (i32.const 0x61) (i32.const 0xf0000))
    (i64.const 0x00000400000f0010))
