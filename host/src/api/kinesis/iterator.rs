//! Shard iterators: where in a shard somebody reads, and since when.
//!
//! ```text
//! tenant u64 │ stream id u64 │ shard u32 │ position u64 │ issued ms u64 │ region len u8, bytes │ name
//! ```
//!
//! (big-endian, sealed by [`Seal`](crate::seal::Seal)). The stream's id makes an iterator of a
//! deleted stream useless for a namesake. Rules: GetRecords, "ShardIterator"; expiry text as
//! production Kinesis writes it, dates as Java's `EEE MMM dd HH:mm:ss zzz yyyy`.

use std::time::Duration;

use shardmill_core::{Scope, ShardId, StreamId, TenantId, UnixMillis};

use super::Error;
use crate::seal::{Kind, Seal};

/// A position in a shard that was handed to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardIterator {
    pub(crate) scope: Scope,
    pub(crate) stream: StreamId,
    /// The stream's name, for messages when the stream is gone.
    pub(crate) name: String,
    pub(crate) shard: ShardId,
    /// The first position to read.
    pub(crate) position: u64,
    pub(crate) issued: UnixMillis,
}

impl ShardIterator {
    /// The text for the client: 1 to 512 characters, different every time.
    pub(crate) fn seal(&self, seal: &Seal) -> String {
        let region = self.scope.region.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(200);
        bytes.extend_from_slice(&self.scope.tenant.number().to_be_bytes());
        bytes.extend_from_slice(&self.stream.0.to_be_bytes());
        bytes.extend_from_slice(&self.shard.0.to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        bytes.extend_from_slice(&self.issued.0.to_be_bytes());
        bytes.push(region.len() as u8);
        bytes.extend_from_slice(region);
        bytes.extend_from_slice(self.name.as_bytes());
        seal.seal(Kind::Iterator, &bytes)
    }

    /// Reads a text back. Double quotes around it are tolerated, as AWS does.
    ///
    /// # Errors
    /// A text that this host did not write, or wrote longer than `lifetime` ago.
    pub(crate) fn open(
        text: &str,
        seal: &Seal,
        now: UnixMillis,
        lifetime: Duration,
    ) -> Result<Self, Error> {
        let text = text.strip_prefix('"').unwrap_or(text);
        let text = text.strip_suffix('"').unwrap_or(text);
        let iterator = seal
            .open(Kind::Iterator, text)
            .and_then(|bytes| Self::read(&bytes))
            .ok_or_else(|| Error::InvalidArgument("Invalid ShardIterator.".into()))?;
        if now.since(iterator.issued) > lifetime {
            return Err(Error::ExpiredIterator(format!(
                "Iterator expired. The iterator was created at time {} while right now it is {} \
                 which is further in the future than the tolerated delay of {} milliseconds.",
                java_date(iterator.issued),
                java_date(now),
                lifetime.as_millis()
            )));
        }
        Ok(iterator)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (tenant, rest) = bytes.split_first_chunk()?;
        let (stream, rest) = rest.split_first_chunk()?;
        let (shard, rest) = rest.split_first_chunk()?;
        let (position, rest) = rest.split_first_chunk()?;
        let (issued, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (region, name) = rest.split_at_checked(usize::from(*length))?;
        Some(Self {
            scope: Scope {
                tenant: TenantId::from_number(u64::from_be_bytes(*tenant))?,
                region: std::str::from_utf8(region).ok()?.parse().ok()?,
            },
            stream: StreamId(u64::from_be_bytes(*stream)),
            name: String::from_utf8(name.to_vec()).ok()?,
            shard: ShardId(u32::from_be_bytes(*shard)),
            position: u64::from_be_bytes(*position),
            issued: UnixMillis(u64::from_be_bytes(*issued)),
        })
    }
}

/// `Sun Oct 10 05:17:11 UTC 2021`.
fn java_date(at: UnixMillis) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, second) = (at.seconds() / 86_400, at.seconds() % 86_400);
    let (year, month, day) = civil_date(days);
    format!(
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year:04}",
        DAYS[(days % 7) as usize],
        MONTHS[(month - 1) as usize],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day, `days` after 1970-01-01. Counts from March, so that the leap day is a
/// year's last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iterator(name: &str, region: &str) -> ShardIterator {
        ShardIterator {
            scope: Scope {
                tenant: TenantId::from_number(999_999_999_999).expect("12 digits"),
                region: region.parse().expect("a region"),
            },
            stream: StreamId(u64::MAX),
            name: name.into(),
            shard: ShardId(7),
            position: 42,
            issued: UnixMillis(1_633_843_031_000),
        }
    }

    #[test]
    fn the_longest_iterator_fits_and_comes_back() {
        let seal = Seal::new([1; 32]);
        let given = iterator(&"n".repeat(128), &"r".repeat(32));
        let text = given.seal(&seal);
        assert!(text.len() <= 512, "{} characters", text.len());
        let now = given.issued.plus(Duration::from_secs(300));
        let lifetime = Duration::from_secs(300);
        assert_eq!(
            ShardIterator::open(&text, &seal, now, lifetime),
            Ok(given.clone())
        );
        let quoted = format!("\"{text}\"");
        assert_eq!(
            ShardIterator::open(&quoted, &seal, now, lifetime),
            Ok(given)
        );
    }

    #[test]
    fn an_old_iterator_is_refused_in_awss_words() {
        let seal = Seal::new([1; 32]);
        let text = iterator("a", "us-east-1").seal(&seal);
        let now = UnixMillis(1_633_849_522_000);
        let told = ShardIterator::open(&text, &seal, now, Duration::from_secs(300));
        let want = "Iterator expired. The iterator was created at time Sun Oct 10 05:17:11 UTC \
                    2021 while right now it is Sun Oct 10 07:05:22 UTC 2021 which is further in \
                    the future than the tolerated delay of 300000 milliseconds.";
        assert_eq!(told, Err(Error::ExpiredIterator(want.into())));
    }

    #[test]
    fn dates_are_javas() {
        for (seconds, want) in [
            (0, "Thu Jan 01 00:00:00 UTC 1970"),
            (951_782_399, "Mon Feb 28 23:59:59 UTC 2000"),
            (951_782_400, "Tue Feb 29 00:00:00 UTC 2000"),
            (4_102_444_800, "Fri Jan 01 00:00:00 UTC 2100"),
            (4_107_542_400, "Mon Mar 01 00:00:00 UTC 2100"),
        ] {
            assert_eq!(java_date(UnixMillis(seconds * 1000)), want);
        }
    }
}
