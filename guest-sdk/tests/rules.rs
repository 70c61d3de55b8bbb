//! What a handler's author may rely on, run through the packed buffers.

use shardmill_guest::testing::{INVOCATION, NoHost, TestHost, pack, record, run_batch, run_record};
use shardmill_guest::{Batch, Context, Error, Level, Record, run};

/// Does a bit of everything, then fails on the text `bad`.
fn handler(record: &Record, ctx: &mut Context) -> Result<(), Error> {
    let seen: u32 = ctx.state().get("seen")?.unwrap_or(0);
    ctx.state().set("seen", seen + 1)?;
    ctx.counter_add("records", 1);
    ctx.emit("out", record.partition_key(), record.data())?;
    ctx.log(Level::Info, record.text()?);
    match record.text()? {
        "bad" => Err(Error::new("Bad", "as it says")),
        "panic" => panic!("as it says"),
        _ => Ok(()),
    }
}

#[test]
fn a_failed_record_leaves_no_effects_and_the_records_before_it_keep_theirs() {
    for bad in ["bad", "panic"] {
        let records = [
            record("a", "1"),
            record("b", "2"),
            record("a", "3"),
            record("a", bad),
            record("b", "5"),
        ];
        let mut host = TestHost::default();
        let outcome = host.run_record(handler, &records);
        assert_eq!(outcome.failed_at, Some(3), "{bad}");
        assert_eq!(outcome.error.expect("a failure").message(), "as it says");
        assert_eq!(outcome.counters["records"], 3);
        assert_eq!(outcome.emitted.len(), 3);
        assert_eq!(outcome.logs.len(), 4, "a log line is no effect");
        assert_eq!(host.state_text("a", "seen"), Some("2"));
        assert_eq!(host.state_text("b", "seen"), Some("1"));

        let outcome = host.run_record(handler, &records[4..]);
        assert_eq!(
            (outcome.failed_at, outcome.state_text("b", "seen")),
            (None, Some("2"))
        );
    }
}

#[test]
fn a_refused_call_never_passes_unseen() {
    let refused = |call: fn(&mut Context) -> Result<(), Error>| {
        let outcome = run_record(
            move |_: &Record, ctx: &mut Context| call(ctx),
            &[record("k", "")],
        );
        assert_eq!(outcome.failed_at, Some(0));
        let error = outcome.error.expect("a refusal");
        assert_eq!(error.error_type(), "HostCallRefused", "{error}");
        error.message().to_owned()
    };
    let why = refused(|ctx| {
        ctx.counter_add(&"n".repeat(129), 1);
        Ok(())
    });
    assert!(
        why.starts_with("counter_add \"nnn") && why.ends_with("too long (code -3)"),
        "{why}"
    );
    refused(|ctx| ctx.state().set_text("", "value"));
    refused(|ctx| ctx.state().set_bytes("value", vec![0; 256 * 1024 + 1]));
    refused(|ctx| ctx.emit("out", "", "data"));
    refused(|ctx| {
        ctx.current(0); // in record mode the host knows
        Ok(())
    });

    let state = |_: &Batch, ctx: &mut Context| ctx.state().delete("name");
    let error = run_batch(state, &[record("k", "")])
        .error
        .expect("no current record");
    assert_eq!(
        error.message(),
        r#"state_delete "name": there is no current record (code -2)"#
    );
}

#[test]
fn state_comes_back_whole_as_it_was_written() {
    let keep = |record: &Record, ctx: &mut Context| {
        let mut state = ctx.state();
        match record.text()? {
            "write" => {
                state.set_bytes("long", vec![7; 100_000])?;
                state.set_text("text", "żółw")?;
                state.set("json", ("a", 1.5))?;
                state.set_bytes("empty", [])
            }
            "read" => {
                assert_eq!(state.get_bytes("long")?, Some(vec![7; 100_000]));
                assert_eq!(state.get_text("text")?.as_deref(), Some("żółw"));
                assert_eq!(state.get("json")?, Some(("a".to_owned(), 1.5)));
                assert_eq!(state.get_bytes("empty")?, Some(vec![]));
                assert_eq!(state.read("long", &mut [0; 8])?, Some(100_000));
                state.delete("text")
            }
            _ => {
                assert_eq!(state.get_text("text")?, None);
                Ok(())
            }
        }
    };
    let mut host = TestHost::default();
    for batch in [
        &["write", "read", "gone"][..],
        &["write"],
        &["read"],
        &["gone"],
    ] {
        let records: Vec<_> = batch.iter().map(|text| record("k", *text)).collect();
        assert_eq!(host.run_record(keep, &records).error, None, "{batch:?}");
    }
}

#[test]
fn a_batch_that_is_cut_or_lies_is_an_error_and_no_panic() {
    let batch = pack(&INVOCATION, &[record("k", "v"), record("k", "w")]);
    let nothing = |_: &Record, _: &mut Context| Ok(());
    let answer = |batch: &[u8]| run::record(nothing, batch, &mut NoHost);
    let is_error = |answer: &[u8]| {
        answer[6] == 2 && answer[16 + 4 * usize::from(answer[8])..].starts_with(b"InvalidBatch\n")
    };
    assert!(!is_error(&answer(&batch)));
    for cut in 0..batch.len() {
        assert!(is_error(&answer(&batch[..cut])), "cut at {cut}");
    }
    // Magic, version, kind, length, count, index, strings: each lies in turn.
    for at in [0, 4, 6, 8, 15, 19, 31] {
        let mut lie = batch.clone();
        lie[at] ^= 0x40;
        assert!(is_error(&answer(&lie)), "byte {at}");
    }
    assert!(is_error(&run::event(
        |_: (), _: &mut Context| Ok(()),
        &batch,
        &mut NoHost
    )));
}
