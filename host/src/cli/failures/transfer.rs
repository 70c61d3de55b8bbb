//! `shardmill failures export` and `import`.

use std::path::PathBuf;

use anyhow::Context;
use hyper::Method;
use serde_json::json;

use crate::cli::client::{Client, escaped};
use crate::cli::print;

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// The entry, or the beginning of its id if there is only one such
    id: String,
    /// The file to write; one that exists is replaced
    file: PathBuf,
    /// With the module that ran, so that it can be replayed where the module is not known
    #[arg(long)]
    with_module: bool,
    /// With the values of the function's environment, secrets among them, so that it replays exactly
    #[arg(long)]
    with_environment: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// The exported file
    file: PathBuf,
}

pub(super) async fn export(client: &Client, arguments: Export, json: bool) -> anyhow::Result<()> {
    let Export {
        id,
        file,
        with_module,
        with_environment,
    } = arguments;
    let path = format!(
        "failures/{}/export?module={with_module}&environment={with_environment}",
        escaped(&id)
    );
    let bytes = client.patient().bytes(&path).await?;
    std::fs::write(&file, &bytes).with_context(|| format!("write {}", file.display()))?;
    let answer = json!({ "file": file.display().to_string(), "bytes": bytes.len() });
    let size = print::size(bytes.len() as u64);
    let held = match with_environment {
        true => "the records and the function's environment",
        false => "the records; the values of the function's environment are left out",
    };
    let text = format!(
        "failure {id} written to {} ({size}): it holds {held}",
        file.display()
    );
    print::done(json, &answer, &text)
}

pub(super) async fn import(client: &Client, arguments: Import, json: bool) -> anyhow::Result<()> {
    let file = arguments.file;
    let bytes = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let body = Some(("application/octet-stream", bytes.into()));
    let answer = client
        .patient()
        .native(Method::POST, "failures", body)
        .await?;
    let text = format!("imported as failure {}", print::cell(&answer["id"]));
    print::done(json, &answer, &text)
}
