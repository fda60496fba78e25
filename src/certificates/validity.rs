//! From when to when a certificate is valid.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;

/// A certificate that ends within so many days should have been renewed: certbot begins 30 days before the end.
const WARNING_DAYS: i64 = 14;

/// The first and the last second of a certificate, as Unix times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// What is wrong with the time of a certificate. Printed, it is the end of a sentence about the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ValidityFault {
    /// Clients refuse it for so many whole days.
    NotYetValid { days: i64, not_before: i64 },
    /// It ends after so many whole days, which are few.
    EndsSoon { days: i64, not_after: i64 },
    /// It ended so many whole days ago.
    Expired { days: i64, not_after: i64 },
}

impl Validity {
    pub(crate) fn fault(self, now: SystemTime) -> Option<ValidityFault> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        let Self { not_before, not_after } = self;
        if now < not_before {
            Some(ValidityFault::NotYetValid { days: (not_before - now) / DAY, not_before })
        } else if now > not_after {
            Some(ValidityFault::Expired { days: (now - not_after) / DAY, not_after })
        } else {
            let days = (not_after - now) / DAY;
            (days < WARNING_DAYS).then_some(ValidityFault::EndsSoon { days, not_after })
        }
    }
}

impl fmt::Display for ValidityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotYetValid { days, not_before } => {
                write!(f, "becomes valid on {}, in {}: until then clients refuse it", Date(not_before), Days(days))
            }
            Self::EndsSoon { days, not_after } => write!(f, "expires on {}, in {}", Date(not_after), Days(days)),
            Self::Expired { days, not_after } => {
                write!(f, "expired on {}, {} ago: clients refuse it", Date(not_after), Days(days))
            }
        }
    }
}

/// A Unix time as RFC 3339.
struct Date(i64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The last second that humantime can print.
        const LAST: u64 = 253_402_300_799;
        let seconds = u64::try_from(self.0).unwrap_or(0).min(LAST);
        write!(f, "{}", humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)))
    }
}

struct Days(i64);

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("less than a day"),
            1 => f.write_str("1 day"),
            days => write!(f, "{days} days"),
        }
    }
}
