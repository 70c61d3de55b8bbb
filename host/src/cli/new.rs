//! `shardmill new`: a handler that works, with its test and a manifest that runs it.

mod files;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::print;
use crate::manifest::Language;

/// Where a template has the project's name.
const NAME: &str = "{{name}}";
/// And the version of the SDK.
const VERSION: &str = "{{version}}";

/// Longest name of a function. Lambda, CreateFunction.
const MAX_NAME_CHARS: usize = 64;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The handler's name, and that of its folder
    name: String,
    /// The language to write it in
    #[arg(long, value_enum)]
    lang: Language,
    /// The folder, if not one of its name here
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = &arguments.name;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty()
        || name.len() > MAX_NAME_CHARS
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(good)
    {
        bail!(
            "name {name:?}: 1 to {MAX_NAME_CHARS} of a-z, 0-9 and -, beginning with a letter, expected"
        );
    }
    let folder = arguments.dir.clone().unwrap_or_else(|| name.into());
    let occupied = fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    if occupied || folder.is_file() {
        bail!("{} exists already", folder.display());
    }
    let language = arguments.lang;
    for (path, text) in files::of(language) {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        let text = text
            .replace(NAME, name)
            .replace(VERSION, env!("CARGO_PKG_VERSION"));
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    let manifest = manifest(name, language);
    fs::write(folder.join("shardmill.toml"), manifest).context("write shardmill.toml")?;
    fs::write(folder.join(".gitignore"), IGNORED).context("write .gitignore")?;
    let (folder, test) = (folder.display(), test_command(language));
    print::line(format!(
        "{folder}: a handler in {}\n\n  cd {folder}\n  {test}\n  shardmill build\n  shardmill serve",
        language.name()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What building and running leave behind.
const IGNORED: &str = "*.wasm\n.shardmill/\n__pycache__/\nnode_modules/\nshardmill-data/\ntarget/\n\
                       test_handler\n";

fn manifest(name: &str, language: Language) -> String {
    let partial = match language {
        Language::PythonLambda => "report_batch_item_failures = true\n",
        _ => "",
    };
    let fuel = match language {
        Language::Python | Language::PythonLambda | Language::Javascript => {
            "# An interpreter needs more than the default of 500,000.\nfuel_per_record = 2000000\n"
        }
        Language::Rust | Language::C | Language::Go => "",
    };
    format!(
        r#"# `shardmill build` makes the module, `shardmill serve` runs it on what is put into the stream:
#     shardmill put clicks FILE

[build]
language = "{}"
output = "{name}.wasm"

[[stream]]
name = "clicks"
shards = 1

[[function]]
name = "{name}"
wasm = "{name}.wasm"
{fuel}
[[mapping]]
name = "{name}"
stream = "clicks"
function = "{name}"
maximum_retry_attempts = 2
{partial}"#,
        language.name()
    )
}

/// How the handler's own tests are run.
fn test_command(language: Language) -> &'static str {
    match language {
        Language::Rust => "cargo test",
        Language::Python | Language::PythonLambda => "python3 -m unittest",
        Language::Javascript => "node --test",
        Language::C => "make test",
        Language::Go => "go test ./...",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::ValueEnum as _;

    use super::*;
    use crate::manifest::Manifest;

    fn arguments(name: &str, lang: Language, dir: &Path) -> Arguments {
        Arguments {
            name: name.into(),
            lang,
            dir: Some(dir.into()),
        }
    }

    #[test]
    fn every_language_has_a_manifest_that_its_host_and_its_build_understand() {
        for language in Language::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            let project = folder.path().join("hello");
            run(&arguments("hello", *language, &project)).unwrap();
            let manifest = Manifest::load(&project.join("shardmill.toml")).unwrap();
            let build = manifest.build.expect("a way to build it");
            assert_eq!(build.language, *language);
            assert_eq!(manifest.functions[0].wasm, build.output);
            for (path, _) in files::of(*language) {
                let text = fs::read_to_string(project.join(path)).unwrap();
                assert!(!text.contains("{{"), "{path}: a place that was not filled");
            }
        }
    }

    #[test]
    fn a_folder_that_holds_something_and_a_name_that_is_none_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        let refused = run(&arguments("hello", Language::C, folder.path())).unwrap_err();
        assert!(refused.to_string().contains("exists already"), "{refused}");
        for name in ["", "Hello", "9lives", "a/b", "..", &"x".repeat(65)] {
            let project = folder.path().join("new");
            let refused = run(&arguments(name, Language::C, &project)).unwrap_err();
            assert!(
                refused.to_string().contains("beginning with a letter"),
                "{refused}"
            );
            assert!(!project.exists());
        }
    }

    #[test]
    fn the_sdk_of_a_new_project_is_whole() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk/src");
        let written: Vec<_> = files::of(Language::Rust).map(|(path, _)| path).collect();
        let mut folders = vec![source.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let path = entry.path();
                let path = path.strip_prefix(&source).unwrap();
                let path = format!("vendor/shardmill-guest/src/{}", path.display());
                assert!(written.contains(&path.as_str()), "{path} is not written");
            }
        }
    }
}
