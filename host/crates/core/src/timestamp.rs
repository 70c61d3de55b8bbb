//! Instants as people and manifests write them: RFC 3339, in UTC when written.
//!
//! Days are counted in the proleptic Gregorian calendar, by eras of 400 years that begin in March,
//! so that a leap day is the last day of its year.

use std::time::Duration;

use crate::time::UnixMillis;

const MILLIS_PER_DAY: i64 = 86_400_000;
const DAYS_PER_ERA: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_EPOCH: i64 = 719_468;

/// `2026-11-23T13:28:40.123Z`.
pub fn format(instant: UnixMillis) -> String {
    let millis = i64::try_from(instant.0).unwrap_or(i64::MAX);
    let (days, rest) = (
        millis.div_euclid(MILLIS_PER_DAY),
        millis.rem_euclid(MILLIS_PER_DAY),
    );
    let (year, month, day) = date(days);
    let (seconds, millis) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Reads `2026-11-23T13:28:40Z`, with a fraction and an offset such as `+01:00` if wanted; a
/// space may stand for the `T`. `None` for anything else, and before 1970.
pub fn parse(text: &str) -> Option<UnixMillis> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-');
    let year = digits(date.next()?, 4)?;
    let month = digits(date.next()?, 2).filter(|m| (1..=12).contains(m))?;
    let day = digits(date.next()?, 2).filter(|d| (1..=31).contains(d))?;
    let days = days(year, month, day);
    if self::date(days) != (year, month, day) {
        return None;
    }
    let offset_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, offset) = time.split_at(offset_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':');
    let hour = digits(parts.next()?, 2).filter(|h| *h < 24)?;
    let minute = digits(parts.next()?, 2).filter(|m| *m < 60)?;
    let second = digits(parts.next()?, 2).filter(|s| *s < 60)?;
    if parts.next().is_some() || fraction.is_empty() || !all_digits(fraction) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    let seconds = hour * 3600 + minute * 60 + second - offset_seconds(offset)?;
    let millis = days * MILLIS_PER_DAY + seconds * 1000 + millis;
    u64::try_from(millis).ok().map(UnixMillis)
}

/// Reads a span before `now`: `90s`, `10m`, `2h`, `7d`. `None` for anything else.
pub fn ago(text: &str, now: UnixMillis) -> Option<UnixMillis> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u64 = Some(number).filter(|n| all_digits(n))?.parse().ok()?;
    let span = Duration::from_secs(number.checked_mul(seconds)?);
    Some(now.minus(span))
}

fn offset_seconds(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, span) = text.split_at_checked(1)?;
    let (hours, minutes) = span.split_once(':')?;
    let hours = digits(hours, 2).filter(|h| *h < 24)?;
    let minutes = digits(minutes, 2).filter(|m| *m < 60)?;
    let seconds = hours * 3600 + minutes * 60;
    Some(if sign == "-" { -seconds } else { seconds })
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && all_digits(text)).then(|| text.parse().ok())?
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - DAYS_BEFORE_EPOCH
}

fn date(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_BEFORE_EPOCH;
    let (era, day_of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_as_they_are_written() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_050_123, "2023-11-14T22:14:10.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(format(UnixMillis(millis)), text);
            assert_eq!(parse(text), Some(UnixMillis(millis)), "{text}");
        }
    }

    #[test]
    fn a_span_counts_back_from_now() {
        let now = UnixMillis(1_700_000_000_000);
        for (text, seconds) in [
            ("0s", Some(0)),
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("7d", Some(604_800)),
            ("99999999999d", Some(1_700_000_000)),
            ("", None),
            ("m", None),
            ("10", None),
            ("-1m", None),
            ("1w", None),
            ("1.5h", None),
            ("99999999999999999999d", None),
        ] {
            let want = seconds.map(|s| now.minus(Duration::from_secs(s)));
            assert_eq!(ago(text, now), want, "{text}");
        }
    }

    #[test]
    fn offsets_and_fractions_are_taken_and_nonsense_is_not() {
        let at = parse("2023-11-14T22:14:10.123Z");
        assert_eq!(parse("2023-11-14 23:14:10.123456+01:00"), at);
        assert_eq!(parse("2023-11-14T17:44:10.123-04:30"), at);
        for bad in [
            "",
            "2023-11-14",
            "2023-11-14T22:14:10",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:14:10.Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
