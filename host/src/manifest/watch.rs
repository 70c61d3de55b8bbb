//! Notices that the manifest or a module has changed. Folders are watched, not files, so that a
//! file that is replaced by a rename is seen; what decides is each file's stamp, not the event.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Files must stand still for this long before they are read.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Files that never stand still are looked at this often all the same.
const MAX_DEBOUNCE: Duration = Duration::from_secs(2);
/// How often files are looked at where the system offers no notifications.
const POLL: Duration = Duration::from_secs(2);

/// The files whose changes matter, each as it was when it was last read.
#[derive(Debug, Default)]
pub struct WatchedFiles {
    seen: BTreeMap<PathBuf, Stamp>,
}

impl WatchedFiles {
    /// Watches exactly these from now on. To be called before they are read: a change that comes
    /// after this call is noticed.
    pub fn set<'a>(&mut self, files: impl IntoIterator<Item = &'a Path>) {
        let mut before = std::mem::take(&mut self.seen);
        for file in files {
            let known = before.remove(file);
            self.seen
                .insert(file.into(), known.unwrap_or_else(|| stamp(file)));
        }
    }

    /// Waits until one of the files has changed since it was set, or since the last return.
    /// Cancel-safe: what is not returned is found the next time.
    pub async fn changed(&mut self) {
        loop {
            let events = Arc::new(Notify::new());
            // Watched first and looked at afterwards, nothing that happens between is missed.
            let watcher = watcher(&self.seen, &events);
            let now: BTreeMap<_, _> = self.seen.keys().map(|f| (f.clone(), stamp(f))).collect();
            if now != self.seen {
                self.seen = now;
                return;
            }
            next(&events, watcher.is_some()).await;
        }
    }
}

/// Waits for an event and then for silence.
async fn next(events: &Notify, watched: bool) {
    if !watched {
        return tokio::time::sleep(POLL).await;
    }
    events.notified().await;
    let silence = async { while timeout(DEBOUNCE, events.notified()).await.is_ok() {} };
    // Not reaching it is no error: a folder may be busy with other files.
    let _ = timeout(MAX_DEBOUNCE, silence).await;
}

fn watcher(files: &BTreeMap<PathBuf, Stamp>, events: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let tell = Arc::clone(events);
    let watcher = notify::recommended_watcher(move |_| tell.notify_one());
    let mut watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::debug!(%error, "no file notifications: looking every {POLL:?}");
            return None;
        }
    };
    let folders: BTreeSet<&Path> = files.keys().filter_map(|file| folder(file)).collect();
    for folder in folders {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::debug!(%error, folder = %folder.display(), "cannot be watched: looking every {POLL:?}");
            return None;
        }
    }
    Some(watcher)
}

/// The nearest folder above a file that exists.
fn folder(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|folder| folder.is_dir())
}

/// What changes when a file is written or replaced: device, inode, length, time in ns.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamp(file: &Path) -> Stamp {
    let data = std::fs::metadata(file).ok()?;
    Some((
        data.dev(),
        data.ino(),
        data.len(),
        data.mtime(),
        data.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_by_a_rename_is_noticed() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("shardmill.toml");
        std::fs::write(&file, "1").expect("a file");
        let mut files = WatchedFiles::default();
        files.set([file.as_path()]);
        for text in ["22", "333"] {
            let new = dir.path().join("new");
            let replace = async {
                tokio::task::yield_now().await;
                std::fs::write(&new, text).expect("a new file");
                std::fs::rename(&new, &file).expect("a rename");
            };
            let changed = timeout(Duration::from_secs(10), files.changed());
            let (in_time, ()) = tokio::join!(changed, replace);
            assert!(in_time.is_ok(), "{text}");
        }
    }
}
