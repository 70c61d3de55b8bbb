//! Calendar arithmetic: dates of the proleptic Gregorian calendar, years 0 … 9999, no leap
//! seconds.

/// 0000-01-01, in milliseconds since the Unix epoch.
pub(crate) const MIN_MS: i64 = -62_167_219_200_000;
/// The last millisecond of 9999.
pub(crate) const MAX_MS: i64 = 253_402_300_799_999;

const DAY_SECONDS: i64 = 86_400;

/// A time of day on a date, in some time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// 1 … 12
    pub(crate) month: i64,
    /// 1 … 31
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    /// 0 … 60: a leap second counts as the next minute's first.
    pub(crate) second: i64,
}

impl Civil {
    /// Seconds since the Unix epoch, or `None` where there is no such time.
    pub(crate) fn to_unix_seconds(self) -> Option<i64> {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self;
        let exists = (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        exists.then(|| {
            days_from_civil(year, month, day) * DAY_SECONDS + hour * 3_600 + minute * 60 + second
        })
    }
}

/// Year, month and day in UTC.
pub(crate) fn utc_date(at_ms: i64) -> (i64, i64, i64) {
    civil_from_days(at_ms.div_euclid(DAY_SECONDS * 1_000))
}

/// `2015-05-17T10:05:03Z`, with any number of decimals, and `Z`, `+02:00` or `+0200`.
pub(crate) fn parse_iso_ms(text: &str) -> Option<i64> {
    let (date_time, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let [
        y,
        yy,
        yyy,
        yyyy,
        b'-',
        m,
        mm,
        b'-',
        d,
        dd,
        b'T',
        h,
        hh,
        b':',
        n,
        nn,
        b':',
        s,
        ss,
    ] = *date_time
    else {
        return None;
    };
    let civil = Civil {
        year: number(&[y, yy, yyy, yyyy])?,
        month: number(&[m, mm])?,
        day: number(&[d, dd])?,
        hour: number(&[h, hh])?,
        minute: number(&[n, nn])?,
        second: number(&[s, ss])?,
    };
    let (ms, offset) = match rest.strip_prefix(b".") {
        None => (0, rest),
        Some(rest) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (decimals, offset) = rest.split_at(digits);
            let shown = number(decimals.get(..decimals.len().min(3))?)?;
            (shown * [100, 10, 1][decimals.len().clamp(1, 3) - 1], offset)
        }
    };
    let offset_seconds = match offset {
        b"Z" => 0,
        offset => offset_seconds(offset)?,
    };
    Some((civil.to_unix_seconds()? - offset_seconds) * 1_000 + ms)
}

/// `+0000`, `-0330`, `+02:00`: seconds east of UTC.
pub(crate) fn offset_seconds(text: &[u8]) -> Option<i64> {
    let (sign, h, hh, m, mm) = match *text {
        [sign, h, hh, m, mm] | [sign, h, hh, b':', m, mm] => (sign, h, hh, m, mm),
        _ => return None,
    };
    let (hours, minutes) = (number(&[h, hh])?, number(&[m, mm])?);
    let seconds = (hours < 24 && minutes < 60).then_some(hours * 3_600 + minutes * 60)?;
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

/// 1 … 12 for `Jan` … `Dec`.
pub(crate) fn month_of_name(name: [u8; 3]) -> Option<i64> {
    const NAMES: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    NAMES
        .as_chunks()
        .0
        .iter()
        .position(|month| *month == name)
        .map(|at| at as i64 + 1)
}

/// At most 18 digits, at least one.
pub(crate) fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01. Years are counted from March, so that the leap day is a year's last, in
/// eras of 400 years, which all have the same length.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let era = days.div_euclid(ERA_DAYS);
    let day_of_era = days.rem_euclid(ERA_DAYS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

const ERA_DAYS: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_calendar_follows_the_day_before() {
        let mut days = days_from_civil(0, 1, 1);
        assert_eq!(days * DAY_SECONDS * 1_000, MIN_MS);
        for year in 0..=9_999 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(days_from_civil(year, month, day), days);
                    assert_eq!(civil_from_days(days), (year, month, day));
                    days += 1;
                }
            }
        }
        assert_eq!(days * DAY_SECONDS * 1_000 - 1, MAX_MS);
    }

    #[test]
    fn an_iso_time_is_read_with_its_offset_and_never_without() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59.999Z", Some(-1)),
            ("2015-05-17T10:05:03.5-03:30", Some(1_431_869_703_500)),
            (
                "2015-05-17T10:05:03.123456789+0000",
                Some(1_431_857_103_123),
            ),
            ("2016-02-29T00:00:00Z", Some(1_456_704_000_000)),
            ("2015-02-29T00:00:00Z", None),
            ("2015-05-17T24:00:00Z", None),
            ("2015-05-17T10:05:03", None),
            ("2015-05-17T10:05:03.Z", None),
            ("2015-05-17 10:05:03Z", None),
        ] {
            assert_eq!(parse_iso_ms(text), ms, "{text}");
        }
    }
}
