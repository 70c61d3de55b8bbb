//! Changing one stream that exists: read it, decide, store; and again when somebody else has
//! changed it in between.
//!
//! Operations of the API wait for one another here. What changes streams without asking for the
//! lock (the manifest, the janitor) is found by the stream's revision, which the store's writer
//! compares.

use shardmill_core::{Stream, UnixMillis};
use shardmill_store::{CommitError, StreamChange, Tx, Urgency};

use super::{Call, Error, Target};

/// How often a change is decided again. Each time another one has won; more than one in a row is
/// rare.
const TRIES: usize = 16;

/// Stores what `decide` makes of the stream, given the time; nothing when that is `None`.
///
/// # Errors
/// Those of `decide`, `ResourceNotFoundException`, and failures of the store.
pub(crate) async fn change(
    call: &Call<'_>,
    target: &Target<'_>,
    urgency: Urgency,
    mut decide: impl FnMut(&Stream, UnixMillis) -> Result<Option<Stream>, Error> + Send,
) -> Result<(), Error> {
    let _control = call.host.control.lock().await;
    for _ in 0..TRIES {
        let stream = target.stream(call)?;
        let Some(changed) = decide(&stream, call.host.clock.now())? else {
            return Ok(());
        };
        let tx = Tx {
            streams: vec![StreamChange::Update(Box::new(changed))],
            urgency,
            ..Tx::default()
        };
        match call.host.store.commit(tx).await {
            Ok(_) => return Ok(()),
            Err(CommitError::StreamChanged(_)) => {}
            Err(CommitError::NoSuchStream(_)) => return Err(target.not_found()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Unavailable(
        "the stream is being changed: try again".into(),
    ))
}
