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
}
