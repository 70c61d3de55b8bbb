//! Secrets at rest: a store that seals what functions' environment variables stand in, with a key
//! that the operator gives and the data folder does not hold.
//!
//! Sealed are the values of functions, and what failure entries keep of an attempt for a replay,
//! its environment among it. Everything above sees them open.
//!
//! ```text
//! "SMS1" │ nonce 12 bytes │ ChaCha20-Poly1305 of the value, its tag at the end
//! ```
//!
//! The value's key in the store (table, account, region, name) goes into the tag: a sealed value
//! that is put in another's place does not open. Nonces are random: a key is good for 2^32 values.
//! A value that was written before there was a key is taken as it is, and sealed at the next start.

use std::sync::Arc;

use bytes::Bytes;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use shardmill_core::Scope;
use shardmill_core::sandbox::BoxFuture;
use shardmill_store::{
    CommitError, Expect, Key, ReadError, Receipt, Store, Table, Tx, Urgency, Value, Versioned,
};
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"SMS1";
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// What is sealed to know a key again.
const PROOF: &[u8] = b"shardmill";

/// Why there is no key, or not the right one.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// Not 64 hexadecimal digits.
    #[error(
        "the key that seals secrets has {0} characters: 64 hexadecimal digits expected, as `openssl \
         rand -hex 32` makes them"
    )]
    Form(usize),
    /// The data were sealed with another key.
    #[error("secrets in this data folder were sealed with another key: give that one")]
    Wrong,
    /// The data were sealed, and there is no key.
    #[error(
        "secrets in this data folder are sealed: give the key, in SHARDMILL_SECRET_KEY or by \
         secret_key_file of [server] in the manifest"
    )]
    Missing,
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The key that seals secrets. Its `Debug` says nothing.
#[derive(Clone)]
pub struct SecretKey(Arc<LessSafeKey>);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// The key that 64 hexadecimal digits spell; blanks around them do not count.
    ///
    /// # Errors
    /// [`SecretsError::Form`].
    pub fn parse(text: &str) -> Result<Self, SecretsError> {
        let text = text.trim();
        let bad = || SecretsError::Form(text.chars().count());
        if text.len() != 2 * KEY_BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes[..]).map_err(|_| bad())?;
        Ok(Self(Arc::new(LessSafeKey::new(key))))
    }

    fn seal(&self, key: &Key, value: &[u8]) -> Bytes {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = value.to_vec();
        let aad = Aad::from(key.as_bytes());
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        // Fails for values of 256 GiB only, which no transaction holds.
        if self
            .0
            .seal_in_place_append_tag(nonce_of, aad, &mut sealed)
            .is_err()
        {
            sealed.clear();
        }
        [&MAGIC[..], &nonce, &sealed].concat().into()
    }

    /// The value, if it was sealed with this key in this place.
    fn open(&self, key: &Key, sealed: &[u8]) -> Option<Bytes> {
        let rest = sealed.strip_prefix(MAGIC)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut value = rest.to_vec();
        let aad = Aad::from(key.as_bytes());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, aad, &mut value).ok()?.len();
        value.truncate(length);
        Some(value.into())
    }
}

/// Whether a value may hold secrets.
fn holds_secrets(key: &Key) -> bool {
    match key.table() {
        Some(Table::Function | Table::Version) => true,
        // The records beside them are no function's.
        Some(Table::FailurePayload) => key
            .split()
            .is_some_and(|(_, parts)| parts.last() == Some(&&b"inputs"[..])),
        _ => false,
    }
}

/// A store that seals secrets.
pub struct SealingStore {
    store: Arc<dyn Store>,
    key: SecretKey,
}

impl SealingStore {
    /// Seals what goes into `store`, and what is in it already.
    ///
    /// # Errors
    /// The data were sealed with another key, or the store cannot be read or written.
    pub async fn open(store: Arc<dyn Store>, key: SecretKey) -> Result<Self, SecretsError> {
        let proof = proof_key();
        match store.get(&proof)? {
            Some(kept) => {
                key.open(&proof, &kept.value).ok_or(SecretsError::Wrong)?;
            }
            None => {
                let tx = Tx {
                    writes: vec![(proof.clone(), Value::Inline(key.seal(&proof, PROOF)))],
                    urgency: Urgency::Housekeeping,
                    ..Tx::default()
                };
                store.commit(tx).await?;
            }
        }
        let sealing = Self { store, key };
        sealing.seal_all(Table::Function).await?;
        sealing.seal_all(Table::Version).await?;
        sealing.seal_all(Table::FailurePayload).await?;
        Ok(sealing)
    }

    /// Seals what was written before there was a key. Nobody else uses the store yet.
    async fn seal_all(&self, table: Table) -> Result<(), SecretsError> {
        const PAGE: usize = 256;
        let prefix = Key::table_prefix(table);
        let mut after = None;
        loop {
            let page = self.store.scan(&prefix, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (key, found) in page {
                if !holds_secrets(&key) {
                    continue;
                }
                // A blob's value is empty here.
                let value = match table {
                    Table::FailurePayload => match self.store.blob(&key).await? {
                        Some(blob) if !blob.starts_with(MAGIC) => {
                            Value::Blob(self.key.seal(&key, &blob))
                        }
                        _ => continue,
                    },
                    _ if found.value.starts_with(MAGIC) => continue,
                    _ => Value::Inline(self.key.seal(&key, &found.value)),
                };
                let tx = Tx {
                    expect: vec![Expect::Revision(key.clone(), Some(found.revision))],
                    writes: vec![(key, value)],
                    urgency: Urgency::Housekeeping,
                    ..Tx::default()
                };
                self.store.commit(tx).await?;
            }
        }
    }

    fn opened(&self, key: &Key, value: Bytes) -> Result<Bytes, ReadError> {
        if !holds_secrets(key) || !value.starts_with(MAGIC) {
            return Ok(value);
        }
        self.key.open(key, &value).ok_or_else(|| {
            ReadError::Damaged("a sealed value that the key does not open in its place".into())
        })
    }

    fn all_opened(&self, found: Vec<(Key, Versioned)>) -> Result<Vec<(Key, Versioned)>, ReadError> {
        let open = |(key, found): (Key, Versioned)| {
            let value = self.opened(&key, found.value)?;
            let revision = found.revision;
            Ok((key, Versioned { value, revision }))
        };
        found.into_iter().map(open).collect()
    }
}

/// Whether secrets in a store are sealed.
///
/// # Errors
/// The store cannot be read.
pub fn is_sealed(store: &dyn Store) -> Result<bool, ReadError> {
    Ok(store.get(&proof_key())?.is_some())
}

fn proof_key() -> Key {
    Key::new(Table::Host, &Scope::default()).part("secret_key")
}

impl Store for SealingStore {
    fn commit(&self, mut tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        for (key, value) in &mut tx.writes {
            if !holds_secrets(key) {
                continue;
            }
            match value {
                Value::Inline(open) => *open = self.key.seal(key, open),
                Value::Blob(open) => *open = self.key.seal(key, open),
                Value::Delete => {}
            }
        }
        self.store.commit(tx)
    }

    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        let Some(Versioned { value, revision }) = self.store.get(key)? else {
            return Ok(None);
        };
        let value = self.opened(key, value)?;
        Ok(Some(Versioned { value, revision }))
    }

    fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        self.all_opened(self.store.scan(prefix, after, limit)?)
    }

    fn scan_back(
        &self,
        prefix: &Key,
        before: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        self.all_opened(self.store.scan_back(prefix, before, limit)?)
    }

    fn blob(&self, key: &Key) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        let blob = self.store.blob(key);
        if !holds_secrets(key) {
            return blob;
        }
        let key = key.clone();
        Box::pin(async move {
            let found = blob.await?;
            found.map(|value| self.opened(&key, value)).transpose()
        })
    }

    shardmill_store::pass_on!(store: read seek extent subscribe has_room catalog);
}

#[cfg(test)]
mod tests {
    use shardmill_core::UnixMillis;
    use shardmill_store::Memory;

    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const SECRET: &[u8] = br#"{"environment":{"TOKEN":"hunter2"}}"#;

    fn memory() -> Arc<dyn Store> {
        Arc::new(Memory::new(Arc::new(|| UnixMillis(1_700_000_000_000))))
    }

    fn function(name: &str) -> Key {
        Key::new(Table::Function, &Scope::default()).part(name)
    }

    fn inputs() -> Key {
        let key = Key::new(Table::FailurePayload, &Scope::default());
        key.part("id").part("inputs")
    }

    async fn write(store: &dyn Store, key: &Key, value: Value) {
        let tx = Tx {
            writes: vec![(key.clone(), value)],
            ..Tx::default()
        };
        store.commit(tx).await.expect("written");
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    async fn raw(store: &dyn Store) -> [Bytes; 2] {
        let value = store.get(&function("f")).expect("read").expect("there");
        let blob = store.blob(&inputs()).await.expect("read").expect("there");
        [value.value, blob]
    }

    #[tokio::test]
    async fn what_is_written_is_sealed_and_read_as_it_was() {
        let below = memory();
        let key = SecretKey::parse(KEY).expect("a key");
        let store = SealingStore::open(Arc::clone(&below), key)
            .await
            .expect("a store");
        let secret = || Bytes::from_static(SECRET);
        write(&store, &function("f"), Value::Inline(secret())).await;
        write(&store, &inputs(), Value::Blob(secret())).await;
        for bytes in raw(below.as_ref()).await {
            assert!(!contains(&bytes, b"hunter2"));
        }
        for bytes in raw(&store).await {
            assert_eq!(bytes, SECRET);
        }
        let scanned = store.scan(&Key::table_prefix(Table::Function), None, 9);
        assert_eq!(scanned.expect("read")[0].1.value, SECRET);
    }

    #[tokio::test]
    async fn what_was_written_before_there_was_a_key_is_sealed_at_the_start() {
        let below = memory();
        write(
            below.as_ref(),
            &function("f"),
            Value::Inline(Bytes::from_static(SECRET)),
        )
        .await;
        write(
            below.as_ref(),
            &inputs(),
            Value::Blob(Bytes::from_static(SECRET)),
        )
        .await;
        assert!(!is_sealed(below.as_ref()).expect("read"));
        let key = SecretKey::parse(KEY).expect("a key");
        let store = SealingStore::open(Arc::clone(&below), key)
            .await
            .expect("a store");
        assert!(is_sealed(below.as_ref()).expect("read"));
        for bytes in raw(below.as_ref()).await {
            assert!(!contains(&bytes, b"hunter2"));
        }
        for bytes in raw(&store).await {
            assert_eq!(bytes, SECRET);
        }
    }

    #[tokio::test]
    async fn a_sealed_value_opens_in_its_place_and_with_its_key_only() {
        let below = memory();
        let key = SecretKey::parse(KEY).expect("a key");
        let store = SealingStore::open(Arc::clone(&below), key)
            .await
            .expect("a store");
        write(
            &store,
            &function("f"),
            Value::Inline(Bytes::from_static(SECRET)),
        )
        .await;
        let sealed = below
            .get(&function("f"))
            .expect("read")
            .expect("there")
            .value;
        write(below.as_ref(), &function("g"), Value::Inline(sealed)).await;
        assert!(matches!(
            store.get(&function("g")),
            Err(ReadError::Damaged(_))
        ));

        let other = SecretKey::parse(&KEY.replace('0', "1")).expect("a key");
        let opened = SealingStore::open(Arc::clone(&below), other).await;
        assert!(matches!(opened.map(drop), Err(SecretsError::Wrong)));
    }

    #[test]
    fn keys_are_64_hexadecimal_digits() {
        for bad in ["", "00", &KEY[1..], &KEY.replace('0', "g"), &"é".repeat(32)] {
            assert!(SecretKey::parse(bad).is_err(), "{bad}");
        }
        assert!(SecretKey::parse(&format!("{}\n", KEY.to_uppercase())).is_ok());
    }
}
