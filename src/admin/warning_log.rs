//! Warnings and their dates: what is wrong is found anew each time, and dated from when it was seen first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::tokens::Date;

/// How long log lines that were dropped are reported.
const DROPPED_FOR: Duration = Duration::from_secs(600);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Warning {
    /// For programs.
    code: &'static str,
    /// For people: sentences.
    text: String,
    since: Date,
}

/// What was wrong the last time, and since when.
#[derive(Default)]
pub(super) struct WarningLog {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    since: HashMap<Key, SystemTime>,
    /// Dropped log lines, and when one was dropped last.
    dropped: u64,
    dropped_at: Option<SystemTime>,
}

/// A code, and what it is about where there are several such things.
type Key = (&'static str, String);

/// Something that is wrong at the moment.
pub(super) struct Finding {
    key: Key,
    text: String,
    /// Where that is known better than by looking.
    since: Option<SystemTime>,
}

impl WarningLog {
    /// Dates what is wrong now; `dropped`: log lines that were dropped so far.
    pub(super) fn date(&self, mut findings: Vec<Finding>, dropped: u64, now: SystemTime) -> Vec<Warning> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if dropped > known.dropped {
            (known.dropped, known.dropped_at) = (dropped, Some(now));
        }
        let is_recent = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < DROPPED_FOR);
        if known.dropped_at.is_some_and(is_recent) {
            let text = format!("{dropped} log lines were dropped: whatever reads standard output is too slow.");
            findings.push(Finding::new("log_lines_dropped", "", text));
        }
        known.date(findings, now)
    }
}

impl Known {
    /// Each finding is dated from when it was first seen; those that are no longer seen are forgotten.
    fn date(&mut self, findings: Vec<Finding>, now: SystemTime) -> Vec<Warning> {
        let before = std::mem::take(&mut self.since);
        let warnings = findings.into_iter().map(|Finding { key, text, since }| {
            let since = since.unwrap_or_else(|| before.get(&key).copied().unwrap_or(now));
            let code = key.0;
            self.since.insert(key, since);
            Warning { code, text, since: Date::new(since) }
        });
        warnings.collect()
    }
}

impl Finding {
    pub(super) fn new(code: &'static str, about: &str, text: String) -> Self {
        Self { key: (code, about.to_owned()), text, since: None }
    }

    /// The same, with a better date.
    pub(super) fn since(self, since: Option<SystemTime>) -> Self {
        Self { since, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_keeps_its_date_until_it_is_gone() {
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let out = |url: &str| Finding::new("endpoint_out", url, format!("{url} is out."));
        let mut known = Known::default();
        let since = |warnings: Vec<Warning>| warnings.into_iter().map(|it| it.since.time()).collect::<Vec<_>>();
        assert_eq!(since(known.date(vec![out("a")], at(10))), [at(10)]);
        assert_eq!(since(known.date(vec![out("b"), out("a")], at(12))), [at(12), at(10)]);
        assert_eq!(since(known.date(vec![out("b")], at(14))), [at(12)]);
        assert_eq!(since(known.date(vec![out("a"), out("b").since(Some(at(3)))], at(16))), [at(16), at(3)]);
    }

    #[test]
    fn dropped_lines_are_reported_for_ten_minutes() {
        let at = |second: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let log = WarningLog::default();
        let reported = |dropped, second| log.date(Vec::new(), dropped, at(second)).first().map(|it| it.text.clone());
        assert_eq!(reported(0, 10), None);
        assert!(reported(7, 20).unwrap().starts_with("7 log lines"));
        assert!(reported(7, 619).is_some());
        assert_eq!(reported(7, 620), None);
        assert!(reported(8, 700).is_some());
    }
}
