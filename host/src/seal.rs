//! Opaque, authenticated texts that a client hands back: shard iterators and page tokens.
//!
//! ```text
//! bytes   0..8               8        9..11       11..            (zeros)   16 bytes  32 bytes
//!         00 … 00 01         kind u8  length u16  payload         padding   random    HMAC-SHA256 of all before
//! ```
//!
//! Padded to 8 + a multiple of 16 bytes, at least 152, and written in Base64, as AWS's iterators
//! look. The random part makes every text different, the code makes it ours. Nothing is hidden:
//! a payload holds only what its receiver may know.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// What the first eight bytes of AWS's iterators are.
const HEADER: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 1];
const NONCE_BYTES: usize = 16;
const CODE_BYTES: usize = 32;
/// Length of the shortest of AWS's iterators, in bytes before Base64.
const LEAST_BYTES: usize = 152;

/// What a text is for: one is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A shard iterator.
    Iterator = 1,
    /// A `NextToken` of ListShards.
    ShardPage = 2,
    /// A `NextToken` of ListStreams.
    StreamPage = 3,
}

/// Seals and opens.
pub(crate) struct Seal {
    mac: Hmac<Sha256>,
}

impl Seal {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        // HMAC takes keys of any length, so the fallback is never used.
        let mac = Hmac::new_from_slice(&key)
            .unwrap_or_else(|_| Hmac::<Sha256>::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
        Self { mac }
    }

    /// The payload, at most 64 KiB of it, as a text.
    pub(crate) fn seal(&self, kind: Kind, payload: &[u8]) -> String {
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::with_capacity(LEAST_BYTES + payload.len());
        bytes.extend_from_slice(&HEADER);
        bytes.push(kind as u8);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&payload[..usize::from(length)]);
        let whole = (bytes.len() + NONCE_BYTES + CODE_BYTES - HEADER.len()).next_multiple_of(16);
        let whole = (whole + HEADER.len()).max(LEAST_BYTES);
        bytes.resize(whole - NONCE_BYTES - CODE_BYTES, 0);
        bytes.extend_from_slice(&rand::random::<[u8; NONCE_BYTES]>());
        let code = self.mac.clone().chain_update(&bytes).finalize();
        bytes.extend_from_slice(&code.into_bytes());
        base64_simd::STANDARD.encode_to_string(bytes)
    }

    /// The payload of a text that this host sealed for this purpose.
    pub(crate) fn open(&self, kind: Kind, text: &str) -> Option<Vec<u8>> {
        let mut bytes = base64_simd::STANDARD.decode_to_vec(text).ok()?;
        let at = bytes.len().checked_sub(CODE_BYTES)?;
        let code = bytes.split_off(at);
        let mac = self.mac.clone().chain_update(&bytes);
        mac.verify_slice(&code).ok()?;
        let (&given, rest) = bytes.strip_prefix(&HEADER)?.split_first()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        (given == kind as u8).then_some(())?;
        rest.get(..usize::from(u16::from_be_bytes(*length)))
            .map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_opens() {
        let seal = Seal::new([7; 32]);
        for length in [0, 1, 93, 94, 200, 1000] {
            let payload = vec![0x5a; length];
            let text = seal.seal(Kind::Iterator, &payload);
            assert_eq!(seal.open(Kind::Iterator, &text), Some(payload));
            assert_eq!(seal.open(Kind::ShardPage, &text), None, "another purpose");
            assert_eq!(
                Seal::new([8; 32]).open(Kind::Iterator, &text),
                None,
                "another key"
            );
        }
    }

    #[test]
    fn no_changed_bit_goes_unnoticed() {
        let seal = Seal::new([7; 32]);
        let text = seal.seal(Kind::Iterator, b"payload");
        let bytes = base64_simd::STANDARD.decode_to_vec(&text).expect("Base64");
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let forged = base64_simd::STANDARD.encode_to_string(forged);
            assert_eq!(seal.open(Kind::Iterator, &forged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_text_is_never_the_same_twice_and_looks_like_awss() {
        let seal = Seal::new([7; 32]);
        let texts = [
            seal.seal(Kind::Iterator, b"x"),
            seal.seal(Kind::Iterator, b"x"),
        ];
        assert_ne!(texts[0], texts[1]);
        let bytes = base64_simd::STANDARD
            .decode_to_vec(&texts[0])
            .expect("Base64");
        assert_eq!((bytes.len(), bytes.len() % 16), (152, 8));
    }
}
