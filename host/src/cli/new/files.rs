//! The files of each language's template, in the binary. They stand in `templates/`; the SDK for
//! Rust, which is in no registry, is `guest-sdk/` itself.

use crate::manifest::Language;

type Files = &'static [(&'static str, &'static str)];

/// Paths in the project, and what stands there.
pub(super) fn of(language: Language) -> impl Iterator<Item = (&'static str, &'static str)> {
    let (own, sdk): (Files, Files) = match language {
        Language::Rust => (RUST, SDK),
        Language::Python => (PYTHON, PYTHON_SDK),
        Language::PythonLambda => (PYTHON_LAMBDA, PYTHON_SDK),
        Language::Javascript => (JAVASCRIPT, &[]),
        Language::C => (C, &[]),
        Language::Go => (GO, &[]),
    };
    own.iter().chain(sdk).copied()
}

const RUST: Files = &[
    (
        "Cargo.toml",
        include_str!("../../../../templates/rust/Cargo.toml.template"),
    ),
    (
        "src/lib.rs",
        include_str!("../../../../templates/rust/src/lib.rs"),
    ),
    (
        "vendor/shardmill-guest/Cargo.toml",
        include_str!("../../../../templates/rust/sdk-Cargo.toml.template"),
    ),
];

const SDK: Files = &[
    (
        "vendor/shardmill-guest/src/abi.rs",
        include_str!("../../../../guest-sdk/src/abi.rs"),
    ),
    (
        "vendor/shardmill-guest/src/answer.rs",
        include_str!("../../../../guest-sdk/src/answer.rs"),
    ),
    (
        "vendor/shardmill-guest/src/batch.rs",
        include_str!("../../../../guest-sdk/src/batch.rs"),
    ),
    (
        "vendor/shardmill-guest/src/context.rs",
        include_str!("../../../../guest-sdk/src/context.rs"),
    ),
    (
        "vendor/shardmill-guest/src/error.rs",
        include_str!("../../../../guest-sdk/src/error.rs"),
    ),
    (
        "vendor/shardmill-guest/src/export.rs",
        include_str!("../../../../guest-sdk/src/export.rs"),
    ),
    (
        "vendor/shardmill-guest/src/host.rs",
        include_str!("../../../../guest-sdk/src/host.rs"),
    ),
    (
        "vendor/shardmill-guest/src/imports.rs",
        include_str!("../../../../guest-sdk/src/imports.rs"),
    ),
    (
        "vendor/shardmill-guest/src/invocation.rs",
        include_str!("../../../../guest-sdk/src/invocation.rs"),
    ),
    (
        "vendor/shardmill-guest/src/lib.rs",
        include_str!("../../../../guest-sdk/src/lib.rs"),
    ),
    (
        "vendor/shardmill-guest/src/record.rs",
        include_str!("../../../../guest-sdk/src/record.rs"),
    ),
    (
        "vendor/shardmill-guest/src/response.rs",
        include_str!("../../../../guest-sdk/src/response.rs"),
    ),
    (
        "vendor/shardmill-guest/src/run.rs",
        include_str!("../../../../guest-sdk/src/run.rs"),
    ),
    (
        "vendor/shardmill-guest/src/sequence_number.rs",
        include_str!("../../../../guest-sdk/src/sequence_number.rs"),
    ),
    (
        "vendor/shardmill-guest/src/state.rs",
        include_str!("../../../../guest-sdk/src/state.rs"),
    ),
    (
        "vendor/shardmill-guest/src/testing.rs",
        include_str!("../../../../guest-sdk/src/testing.rs"),
    ),
    (
        "vendor/shardmill-guest/src/testing/call.rs",
        include_str!("../../../../guest-sdk/src/testing/call.rs"),
    ),
    (
        "vendor/shardmill-guest/src/testing/no_host.rs",
        include_str!("../../../../guest-sdk/src/testing/no_host.rs"),
    ),
    (
        "vendor/shardmill-guest/src/testing/pack.rs",
        include_str!("../../../../guest-sdk/src/testing/pack.rs"),
    ),
    (
        "vendor/shardmill-guest/src/testing/read_answer.rs",
        include_str!("../../../../guest-sdk/src/testing/read_answer.rs"),
    ),
];

const PYTHON: Files = &[
    (
        "app.py",
        include_str!("../../../../templates/python/app.py"),
    ),
    (
        "test_app.py",
        include_str!("../../../../templates/python/test_app.py"),
    ),
];

const PYTHON_LAMBDA: Files = &[
    (
        "app.py",
        include_str!("../../../../templates/python-lambda/app.py"),
    ),
    (
        "lambda_function.py",
        include_str!("../../../../templates/python-lambda/lambda_function.py"),
    ),
    (
        "test_lambda_function.py",
        include_str!("../../../../templates/python-lambda/test_lambda_function.py"),
    ),
];

const PYTHON_SDK: Files = &[
    (
        "shardmill.py",
        include_str!("../../../../templates/python/shardmill.py"),
    ),
    (
        "wit/shardmill.wit",
        include_str!("../../../../guest-sdk/wit/shardmill.wit"),
    ),
];

const JAVASCRIPT: Files = &[
    (
        "handler.js",
        include_str!("../../../../templates/javascript/handler.js"),
    ),
    (
        "handler.test.js",
        include_str!("../../../../templates/javascript/handler.test.js"),
    ),
    (
        "main.js",
        include_str!("../../../../templates/javascript/main.js"),
    ),
    (
        "package.json",
        include_str!("../../../../templates/javascript/package.json"),
    ),
    (
        "shardmill.js",
        include_str!("../../../../templates/javascript/shardmill.js"),
    ),
    (
        "wit/shardmill.wit",
        include_str!("../../../../guest-sdk/wit/shardmill.wit"),
    ),
];

const C: Files = &[
    ("Makefile", include_str!("../../../../templates/c/Makefile")),
    (
        "handler.c",
        include_str!("../../../../templates/c/handler.c"),
    ),
    (
        "shardmill.h",
        include_str!("../../../../templates/c/shardmill.h"),
    ),
    (
        "test_handler.c",
        include_str!("../../../../templates/c/test_handler.c"),
    ),
];

const GO: Files = &[
    (
        "go.mod",
        include_str!("../../../../templates/go/go.mod.template"),
    ),
    ("main.go", include_str!("../../../../templates/go/main.go")),
    (
        "main_test.go",
        include_str!("../../../../templates/go/main_test.go"),
    ),
    (
        "shardmill/shardmill.go",
        include_str!("../../../../templates/go/shardmill/shardmill.go"),
    ),
    (
        "shardmill/wasm.go",
        include_str!("../../../../templates/go/shardmill/wasm.go"),
    ),
];
