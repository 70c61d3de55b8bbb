//! What PutRecord and PutRecords share: from records in a request to records in shards.
//!
//! [`prepare`] finds the stream, routes every record and decodes its data straight into its
//! shard's packed form; [`Batch::commit`] stores the whole request in one transaction. A shard
//! that was closed in between is routed around.
//!
//! Rules: Kinesis Data Streams, PutRecord and PutRecords. AWS's texts for a record or a request
//! that is too large today are not known; ours name the offender.

mod read;

pub(crate) use read::{Data, Entry, FastEntry, Text, target};

use std::sync::Arc;

use base64_simd::AsOut;
use shardmill_core::limits::MAX_PUT_RECORDS_BYTES;
use shardmill_core::shard::ShardId;
use shardmill_core::{HashKey, Records, SequenceNumber, Stream};
use shardmill_store::{Append, Appended, CommitError, Receipt, Route, Tx};

use super::routes::Routing;
use super::{Call, Error, Target};

/// How often records are routed again because a shard was closed. Each time another
/// transaction has won; more than one in a row is rare.
const REROUTES: usize = 16;

/// Where a record was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) shard: ShardId,
    pub(crate) number: SequenceNumber,
}

/// Records on their way into a stream.
pub(crate) struct Batch<'a> {
    target: Target<'a>,
    entries: Vec<Entry<'a>>,
    stream: Arc<Stream>,
    packed: Packed,
}

/// Records in the order and form of a transaction.
struct Packed {
    appends: Vec<Append>,
    /// Of every record, its append; empty when there is one append that the store routes.
    places: Vec<u32>,
}

/// Finds the stream, checks sizes, routes and packs. Does not wait.
///
/// # Errors
/// No such stream, a record or a request that is too large, or data that is no Base64 (which a
/// checked input cannot have: the fast way takes the careful one then).
pub(crate) fn prepare<'a>(
    call: &Call<'_>,
    target: Target<'a>,
    entries: Vec<Entry<'a>>,
) -> Result<Batch<'a>, Error> {
    let stream = target.writable_stream(call)?;
    check_sizes(&stream, &entries)?;
    let packed = pack(call, &stream, &entries)?;
    Ok(Batch {
        target,
        entries,
        stream,
        packed,
    })
}

impl Batch<'_> {
    /// Stores the records: all of them, durably, or none. Gives their places, in order.
    ///
    /// # Errors
    /// The stream is gone meanwhile, the disk is full, or the store failed.
    pub(crate) async fn commit(mut self, call: &Call<'_>) -> Result<Vec<Placed>, Error> {
        for _ in 0..REROUTES {
            let Packed { appends, places } = self.packed;
            let tx = Tx {
                appends,
                producer: call.producer.clone(),
                ..Tx::default()
            };
            match call.host.store.commit(tx).await {
                Ok(receipt) => {
                    return placed(call, &self.stream, self.entries.len(), &places, &receipt);
                }
                Err(CommitError::ShardClosed(_)) => {
                    self.stream = self.target.writable_stream(call)?;
                    self.packed = pack(call, &self.stream, &self.entries)?;
                }
                Err(CommitError::NoSuchStream(_)) => return Err(self.target.not_found()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Unavailable(
            "the stream's shards are changing: try again".into(),
        ))
    }
}

fn check_sizes(stream: &Stream, entries: &[Entry<'_>]) -> Result<(), Error> {
    let most = stream.max_record_bytes();
    let mut total = 0;
    for (number, entry) in entries.iter().enumerate() {
        let size = entry.data.length() + entry.key.len();
        let number = number + 1;
        if size > most {
            return Err(Error::InvalidArgument(format!(
                "Record {number} of the request has {size} bytes of data and partition key. The \
                 limit of stream {} under account {} is {most} bytes.",
                stream.name, stream.scope.tenant
            )));
        }
        total += size;
        if total > MAX_PUT_RECORDS_BYTES {
            return Err(Error::InvalidArgument(format!(
                "Records size exceeds 10 MB limit (reached with record {number} of {}).",
                entries.len()
            )));
        }
    }
    Ok(())
}

fn pack(call: &Call<'_>, stream: &Arc<Stream>, entries: &[Entry<'_>]) -> Result<Packed, Error> {
    if call.producer.is_some() {
        return pack_together(stream, entries);
    }
    let routing = call.host.routes.of(stream);
    pack_by_shard(&routing, entries)
}

/// One append for each shard that gets records.
fn pack_by_shard(routing: &Routing, entries: &[Entry<'_>]) -> Result<Packed, Error> {
    const NONE: u32 = u32::MAX;
    struct Size {
        slot: usize,
        records: usize,
        bytes: usize,
    }
    let mut append_of_slot = vec![NONE; routing.count()];
    let mut sizes: Vec<Size> = Vec::new();
    let mut places = Vec::with_capacity(entries.len());
    for entry in entries {
        let slot = routing.slot(entry.hash_key());
        let slot = slot.ok_or_else(|| Error::Internal("a stream without open shards".into()))?;
        if append_of_slot[slot] == NONE {
            append_of_slot[slot] = sizes.len() as u32;
            sizes.push(Size {
                slot,
                records: 0,
                bytes: 0,
            });
        }
        let place = append_of_slot[slot];
        let size = &mut sizes[place as usize];
        size.records += 1;
        size.bytes += entry.packed_bytes();
        places.push(place);
    }
    let append = |size: &Size| Append {
        stream: routing.stream.id,
        route: Route::Shard(routing.shard(size.slot).id),
        records: Records::with_capacity(size.records, size.bytes),
    };
    let mut appends: Vec<_> = sizes.iter().map(append).collect();
    for (entry, place) in entries.iter().zip(&places) {
        push(&mut appends[*place as usize].records, entry)?;
    }
    Ok(Packed { appends, places })
}

/// One append that the store routes: a repeated answer must fit whatever the shards were then.
fn pack_together(stream: &Stream, entries: &[Entry<'_>]) -> Result<Packed, Error> {
    let bytes = entries.iter().map(Entry::packed_bytes).sum();
    let mut records = Records::with_capacity(entries.len(), bytes);
    for entry in entries {
        push(&mut records, entry)?;
    }
    let append = Append {
        stream: stream.id,
        route: Route::HashKey,
        records,
    };
    Ok(Packed {
        appends: vec![append],
        places: Vec::new(),
    })
}

fn push(records: &mut Records, entry: &Entry<'_>) -> Result<(), Error> {
    let mut decoded = true;
    let fill = |out: &mut [u8]| match &entry.data {
        Data::Bytes(bytes) => out.copy_from_slice(bytes),
        Data::Base64 { text, .. } => {
            let result = base64_simd::STANDARD.decode(text.as_bytes(), out.as_out());
            decoded = result.is_ok();
        }
    };
    records.push_with(&entry.key, entry.explicit, entry.data.length(), fill);
    if decoded {
        Ok(())
    } else {
        Err(Error::WrongType("data is no Base64".into()))
    }
}

fn placed(
    call: &Call<'_>,
    stream: &Arc<Stream>,
    count: usize,
    places: &[u32],
    receipt: &Receipt,
) -> Result<Vec<Placed>, Error> {
    let number = |at: &Appended, offset: u64| {
        let find = |stream: &Stream| {
            let shard = stream.shard(at.shard)?;
            Some(shard.sequence_number(at.first + offset, at.arrival.seconds()))
        };
        // The answer to an earlier try may name a shard that this state of the stream lacks.
        let number = find(stream).or_else(|| find(&*call.host.store.stream_by_id(stream.id)?));
        let shard = at.shard;
        let number = number.ok_or_else(|| match &call.producer {
            // Only a repeated request is that old.
            Some(_) => Error::InvalidArgument(format!(
                "the producer's number was used for records in {shard}, which have expired: \
                 count on"
            )),
            None => Error::Internal(format!("no {shard} in the stream")),
        })?;
        Ok(Placed { shard, number })
    };
    if call.producer.is_some() {
        if receipt.appended.len() != count {
            return Err(Error::InvalidArgument(format!(
                "the producer's number was used for a request with {} records, this one has {count}",
                receipt.appended.len()
            )));
        }
        return receipt.appended.iter().map(|at| number(at, 0)).collect();
    }
    let mut offsets = vec![0; receipt.appended.len()];
    let place = |place: &u32| {
        let place = *place as usize;
        let at = receipt.appended.get(place);
        let at = at.ok_or_else(|| Error::Internal("a receipt without its append".into()))?;
        let offset = offsets[place];
        offsets[place] += 1;
        number(at, offset)
    };
    places.iter().map(place).collect()
}

/// Reads an explicit hash key that has the right form.
///
/// # Errors
/// It is above 2^128 − 1.
pub(crate) fn explicit_hash_key(text: &str) -> Result<HashKey, Error> {
    text.parse().map(HashKey).map_err(|_| {
        Error::InvalidArgument(format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. \
             Specified value was {text}"
        ))
    })
}
