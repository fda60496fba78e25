//! Dates of records: RFC 3339 in UTC, to the second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in a record, cut to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(SystemTime);

impl Date {
    /// Cuts a time to the second; times before 1970 and after 9999 are moved to these bounds.
    pub(crate) fn new(time: SystemTime) -> Self {
        const YEAR_9999: u64 = 253_402_300_799;
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self(UNIX_EPOCH + Duration::from_secs(seconds.min(YEAR_9999)))
    }

    /// Reads `2027-01-31T12:00:00Z` or `2027-01-31` (midnight UTC).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let midnight = (text.len() == 10).then(|| format!("{text}T00:00:00Z"));
        humantime::parse_rfc3339(midnight.as_deref().unwrap_or(text)).ok().map(Self::new)
    }

    /// Reads a date as databases write it as well: `2027-01-31 12:00:00`, which is taken for UTC, or with an offset such as
    /// `+02`, `+05:30` or `-0700` behind it.
    pub(super) fn parse_database(text: &str) -> Option<Self> {
        const DATE_LENGTH: usize = 10;
        let text = text.strip_suffix(" UTC").unwrap_or(text);
        let sign = text.get(DATE_LENGTH..).and_then(|time| time.rfind(['+', '-'])).map(|at| DATE_LENGTH + at);
        let Some(sign) = sign else {
            return Self::parse(text).or_else(|| Self::parse(&format!("{}Z", text.replacen(' ', "T", 1))));
        };
        let (local, offset) = text.split_at(sign);
        let local = Self::parse(&format!("{}Z", local.trim_end().replacen(' ', "T", 1)))?;
        let digits: String = offset[1..].chars().filter(|character| *character != ':').collect();
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (hours, minutes) = match digits.len() {
            2 => (digits.parse::<u64>().ok()?, 0),
            4 => (digits[..2].parse().ok()?, digits[2..].parse::<u64>().ok()?),
            _ => return None,
        };
        if hours > 15 || minutes > 59 {
            return None;
        }
        let offset_s = Duration::from_secs((hours * 60 + minutes) * 60);
        let time =
            if text[sign..].starts_with('+') { local.0.checked_sub(offset_s) } else { local.0.checked_add(offset_s) };
        time.map(Self::new)
    }

    /// The moment.
    pub fn time(self) -> SystemTime {
        self.0
    }

    /// Seconds since 1970.
    pub(super) fn unix(self) -> u64 {
        self.0.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        humantime::format_rfc3339_seconds(self.0).fmt(f)
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 date in UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written() {
        let date = Date::parse("2027-01-31T12:30:05Z").unwrap();
        assert_eq!(date.unix(), 1_801_398_605);
        assert_eq!(date.to_string(), "2027-01-31T12:30:05Z");
        assert_eq!(Date::parse("2027-01-31").unwrap().to_string(), "2027-01-31T00:00:00Z");
        assert_eq!(Date::parse("2027-01-31T12:30:05.75Z"), Some(date));
        for bad in
            ["", "tomorrow", "2027-13-01", "2027-02-30", "31.01.2027", "2027-01-31T25:00:00Z", "2027-1-1", "été-été-é"]
        {
            assert_eq!(Date::parse(bad), None, "{bad}");
        }
        assert_eq!(Date::new(UNIX_EPOCH - Duration::from_secs(5)).unix(), 0);
    }

    #[test]
    fn dates_of_databases_have_offsets() {
        for (text, date) in [
            ("2027-01-31 12:30:05", "2027-01-31T12:30:05Z"),
            ("2027-01-31 12:30:05.123456", "2027-01-31T12:30:05Z"),
            ("2027-01-31 12:30:05+00", "2027-01-31T12:30:05Z"),
            ("2027-01-31 12:30:05.5+02", "2027-01-31T10:30:05Z"),
            ("2027-01-31T12:30:05+05:30", "2027-01-31T07:00:05Z"),
            ("2027-01-31 22:30:05-0700", "2027-02-01T05:30:05Z"),
            ("2027-01-31 12:30:05 UTC", "2027-01-31T12:30:05Z"),
            ("2027-01-31", "2027-01-31T00:00:00Z"),
        ] {
            assert_eq!(Date::parse_database(text).unwrap().to_string(), date, "{text}");
        }
        for bad in [
            "",
            "infinity",
            "2027-01-31 12:30:05+",
            "2027-01-31 12:30:05+2",
            "2027-01-31 12:30:05+é0",
            "2027-01-31 12:30:05+aé1",
            "2027-01-31 12:30:05++2",
            "2027-01-31+02",
            "2027-01-31 12:30:05+99",
        ] {
            assert!(Date::parse_database(bad).is_none(), "{bad}");
        }
    }
}
