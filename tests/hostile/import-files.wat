;; tries: to open files, which may be imported and answers that it cannot
;; counters: refused=3
(module
    (import "shardmill" "counter_add" (func $counter (param i32 i32 i64) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
    (memory (export "memory") 32)
    (data (i32.const 8) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
    (data (i32.const 0x400) "/etc/passwdrefused")
    (func (export "shardmill_abi_v1") (result i32) (i32.const 2))
    (func (export "shardmill_prepare") (param i32) (result i32) (i32.const 0x10000))
    (func $must (param $is i32) (param $be i32)
        (if (i32.ne (local.get $is) (local.get $be)) (then unreachable)))
    (func (export "shardmill_handle") (param $ptr i32) (param i32) (result i64) (local $fd i32)
        (loop $l
            (call $must (call $open (local.get $fd) (i32.const 0) (i32.const 0x400) (i32.const 11) (i32.const 0)
                (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 0x500)) (i32.const 76))
            (call $must (call $prestat (local.get $fd) (i32.const 0x500)) (i32.const 8))
            (call $must (call $accept (local.get $fd) (i32.const 0) (i32.const 0x500)) (i32.const 76))
            (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $fd) (i32.const 100))))
        (if (i32.load offset=12 (local.get $ptr)) (then
            (call $must (call $counter (i32.const 0x40b) (i32.const 7) (i64.const 3)) (i32.const 0))))
        (i64.const 0x0000000800000010)))
