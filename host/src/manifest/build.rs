//! How a handler's sources become its module: the manifest's `[build]`. A host has no interest in
//! it; `shardmill build` has.

use std::path::{Path, PathBuf};

use super::error::BadKey;
use super::table::BuildTable;

/// Languages that `shardmill new` and `shardmill build` know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// A core module, by cargo
    Rust,
    /// A component, by componentize-py
    Python,
    /// The same, running an existing `lambda_handler(event, context)` unchanged
    PythonLambda,
    /// A component, by componentize-js
    Javascript,
    /// A core module, by zig's C compiler
    C,
    /// A core module, by Go 1.24 or later
    Go,
}

impl Language {
    const ALL: [Self; 6] = [
        Self::Rust,
        Self::Python,
        Self::PythonLambda,
        Self::Javascript,
        Self::C,
        Self::Go,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::PythonLambda => "python-lambda",
            Self::Javascript => "javascript",
            Self::C => "c",
            Self::Go => "go",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// What `shardmill build` makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildSpec {
    /// The sources' language.
    pub language: Language,
    /// The module's file, absolute.
    pub output: PathBuf,
}

pub(super) fn check_build(table: BuildTable, base: &Path) -> Result<BuildSpec, BadKey> {
    let bad = |key, value, expected: String| BadKey {
        table: "build".into(),
        key,
        value,
        expected,
    };
    let names = Language::ALL.map(Language::name).join(", ");
    let language = table.language.as_deref().and_then(Language::named);
    Ok(BuildSpec {
        language: language
            .ok_or_else(|| bad("language", table.language, format!("one of {names}")))?,
        output: table
            .output
            .map(|output| base.join(output))
            .ok_or_else(|| bad("output", None, "the module's file".into()))?,
    })
}
