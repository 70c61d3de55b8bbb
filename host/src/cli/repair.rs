//! `shardmill repair`: gives up what follows a damaged place in the journal, so that a host that
//! refuses to start can start again. The only command that touches a data folder itself.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use shardmill_store::io::DiskIo;
use shardmill_store::{Embedded, Options};

use super::print;
use crate::config::DEFAULT_DATA_DIR;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the data is; no host may be running on it
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// Give up everything that was written after the damaged place
    #[arg(long)]
    accept_loss: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = &arguments.data_dir;
    if !folder.is_dir() {
        bail!(
            "there is no folder {}: --data-dir names it",
            folder.display()
        );
    }
    if !arguments.accept_loss {
        bail!(
            "what was written after a damaged place is lost by a repair: copy {} first, then say \
             --accept-loss",
            folder.display()
        );
    }
    let io = DiskIo::new(folder).with_context(|| format!("use {}", folder.display()))?;
    let report = Embedded::repair(Arc::new(io), Options::default())
        .with_context(|| format!("repair the store in {}", folder.display()))?;
    let Some(damage) = report.damage else {
        return print::line("nothing is damaged; nothing was changed");
    };
    print::line(format!("cut at the damage: {damage}"))?;
    print::line(format!(
        "kept {} commit groups before it",
        report.kept_frames
    ))?;
    print::line(format!(
        "lost {} commit groups that could still be recognised, {}",
        report.lost_frames,
        print::size(report.lost_bytes)
    ))?;
    for shard in report.lost_shards {
        print::line(format!("  records of {shard}"))?;
    }
    Ok(())
}
