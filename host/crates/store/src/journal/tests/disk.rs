//! The journal on a real disk, with its threads.

use super::*;
use crate::io::DiskIo;

fn open(
    folder: &std::path::Path,
    from: Position,
) -> Result<(Journal, Writer, Syncer, Vec<u64>), OpenError> {
    let io: Arc<dyn Io> = Arc::new(DiskIo::new(folder).expect("a folder"));
    let lock = FolderLock::take(&*io)?;
    let options = JournalOptions {
        segment_bytes: 1 << 20,
        prepare: Prepare::Thread,
        ..options()
    };
    let mut numbers = Vec::new();
    let each = |frame: RecoveredFrame| {
        numbers.push(frame.number);
        Ok::<_, Infallible>(())
    };
    let (journal, writer, syncer) = Journal::open(io, lock, options, from, each)?;
    Ok((journal, writer, syncer, numbers))
}

#[test]
fn a_journal_on_disk_is_found_again_and_locked_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let (journal, mut writer, mut syncer, _) = open(folder.path(), Position::START).expect("opens");
    let error = open(folder.path(), Position::START)
        .map(|_| ())
        .expect_err("locked");
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );

    // More pieces than one system call takes, and more segments than are in reserve.
    let bytes = vec![5; 3 << 20];
    let pieces: Vec<Piece<'_>> = bytes.chunks(300).take(2_500).map(Piece::from).collect();
    let crc = crc32fast::hash(&bytes[..750_000]);
    let mut places = Vec::new();
    for number in 1..=8 {
        let frame = Frame {
            number,
            shards: &[],
            payload: &pieces,
        };
        places.extend(writer.append(&[frame]).expect("an append").places);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| syncer.sync().expect("a sync"));
    });
    for place in &places {
        journal.read(*place, crc).expect("readable");
    }
    let tables = journal.durable();
    drop((journal, writer, syncer));

    let (journal, writer, syncer, found) = open(folder.path(), Position::START).expect("opens");
    assert_eq!(found, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(writer.end() > tables);
    let end = writer.end();
    syncer.close(writer).expect("a close");
    assert!(
        journal.release(1, end).expect("released"),
        "readers may outlive the writer"
    );
    drop(journal);
    let (.., found) = open(folder.path(), end).expect("opens");
    assert!(found.is_empty());
}
