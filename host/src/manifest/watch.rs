//! Notices that the manifest or a module has changed. Folders are watched, not files, so that a
//! file that is replaced by a rename is seen; what decides is each file's stamp, not the event.
//!
//! A file that was closed after it was written, or that came by a rename, is whole and is read at
//! once; any other change must stand still first. Who writes a file in several goes may still be
//! met half-way: what is read then fails, and the next change brings the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::timeout;

/// A file that is whole is read after this long: others may come with it.
const SETTLE: Duration = Duration::from_millis(2);
/// Files that may be half-written must stand still for this long before they are read.
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
            let events = Arc::new(Events::default());
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

/// What a watcher has seen.
#[derive(Default)]
struct Events {
    any: Notify,
    /// Whether one of the files is whole since it changed.
    whole: AtomicBool,
}

impl Events {
    fn note(&self, event: notify::Result<Event>, files: &BTreeSet<PathBuf>) {
        if let Ok(event) = &event {
            let whole = matches!(
                event.kind,
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                    | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
            );
            if whole && event.paths.iter().any(|path| files.contains(path)) {
                self.whole.store(true, SeqCst);
            }
            if !whole && matches!(event.kind, EventKind::Access(_)) {
                // Somebody reads.
                return;
            }
        }
        self.any.notify_one();
    }
}

/// Waits for an event, and then for a file that is whole or for silence.
async fn next(events: &Events, watched: bool) {
    if !watched {
        return tokio::time::sleep(POLL).await;
    }
    events.any.notified().await;
    let silence = async {
        while !events.whole.load(SeqCst) {
            if timeout(DEBOUNCE, events.any.notified()).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(SETTLE).await;
    };
    // Not reaching it is no error: a folder may be busy with other files.
    let _ = timeout(MAX_DEBOUNCE, silence).await;
}

fn watcher(files: &BTreeMap<PathBuf, Stamp>, events: &Arc<Events>) -> Option<RecommendedWatcher> {
    let tell = Arc::clone(events);
    let watched: BTreeSet<PathBuf> = files.keys().cloned().collect();
    let watcher = notify::recommended_watcher(move |event| tell.note(event, &watched));
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

    #[tokio::test]
    async fn a_file_that_is_written_deleted_and_made_again_is_noticed_each_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("f.wasm");
        std::fs::write(&file, "1").expect("a file");
        let mut files = WatchedFiles::default();
        files.set([file.as_path()]);
        type Change = fn(&Path) -> std::io::Result<()>;
        let changes: [(&str, Change); 4] = [
            ("written in place", |file| std::fs::write(file, "longer")),
            ("deleted", |file| std::fs::remove_file(file)),
            ("made again", |file| std::fs::write(file, "1")),
            ("linked from elsewhere", |file| {
                let other = file.with_extension("new");
                std::fs::write(&other, "another")?;
                std::fs::remove_file(file)?;
                std::fs::hard_link(other, file)
            }),
        ];
        for (name, change) in changes {
            let change = async {
                tokio::task::yield_now().await;
                change(&file).expect(name);
            };
            let changed = timeout(Duration::from_secs(10), files.changed());
            let (in_time, ()) = tokio::join!(changed, change);
            assert!(in_time.is_ok(), "{name}");
        }
    }
}
