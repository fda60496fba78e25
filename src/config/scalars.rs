//! What a field may hold: numbers, sizes, durations, choices, names; each says what is allowed when it finds something else.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::nearest::nearest;
use super::reader::Field;
use super::units::{parse_duration, parse_size, say_duration, say_size};
use super::yaml::Value;

impl Field<'_> {
    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.scalar()?.as_ref() {
            Value::Bool(value) => Some(*value),
            _ => self.refuse(format!("must be true or false, not {}", self.kind())),
        }
    }

    /// A whole number in `range`.
    pub(super) fn number<T: FromStr + Display + PartialOrd>(&self, range: RangeInclusive<T>) -> Option<T> {
        let must = || format!("must be a whole number from {} to {}", range.start(), range.end());
        match self.scalar()?.as_ref() {
            Value::Number(text) => {
                let number = text.parse().ok().filter(|number| range.contains(number));
                number.or_else(|| self.refuse(format!("{}, not {}", must(), self.kind())))
            }
            Value::Text(text) if text.parse::<T>().is_ok() => {
                self.refuse(format!("{}, not {} (remove the quotes)", must(), self.kind()))
            }
            _ => self.refuse(format!("{}, not {}", must(), self.kind())),
        }
    }

    /// A whole number in `range`, or `none` (the inner `None`).
    pub(super) fn number_or_none<T: FromStr + Display + PartialOrd>(
        &self,
        range: RangeInclusive<T>,
    ) -> Option<Option<T>> {
        if self.scalar()?.is_text("none") { Some(None) } else { self.number(range).map(Some) }
    }

    /// A share such as `20%`, in `range`.
    pub(super) fn percent(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let scalar = self.scalar()?;
        let number = match scalar.as_ref() {
            Value::Text(text) => text.strip_suffix('%').and_then(|number| number.parse().ok()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Map(_) => None,
        };
        number.filter(|number| range.contains(number)).or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.refuse(format!("must be a share from {least}% to {most}% (for example 20%), not {}", self.kind()))
        })
    }

    /// A number of bytes in `range`, bare or with its unit.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.amount("a size (for example 65536, 64KiB, 1GiB or 1MB)")?;
        match parse_size(&text) {
            Ok(size) if range.contains(&size) => Some(size),
            Ok(_) => {
                let (least, most) = (say_size(*range.start()), say_size(*range.end()));
                self.refuse(format!("must be from {least} to {most}, not {}", self.shown()))
            }
            Err(message) => self.refuse(format!("{message}, not {}", self.shown())),
        }
    }

    /// A size that memory holds.
    pub(super) fn buffer(&self, range: RangeInclusive<u64>) -> Option<usize> {
        self.size(range).and_then(|size| usize::try_from(size).ok())
    }

    /// A duration in `range`, with its unit.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.amount("a duration (for example 50ms, 10s, 4h or 1h30m)")?;
        match parse_duration(&text) {
            Ok(duration) if range.contains(&duration) => Some(duration),
            // Zero needs no unit to be understood, and is out of most ranges.
            Err(_) if text == "0" && range.contains(&Duration::ZERO) => Some(Duration::ZERO),
            Ok(_) => {
                let (least, most) = (say_duration(*range.start()), say_duration(*range.end()));
                self.refuse(format!("must be from {least} to {most}, not {}", self.shown()))
            }
            Err(message) => self.refuse(message),
        }
    }

    /// A duration in `range`, or `none` (the inner `None`).
    pub(super) fn duration_or_none(&self, range: RangeInclusive<Duration>) -> Option<Option<Duration>> {
        match self.scalar()?.as_ref() {
            Value::Text(text) if text == "none" => Some(None),
            _ => self.duration(range).map(Some),
        }
    }

    /// One of a few words, and what it stands for.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let value = self.scalar()?;
        let word: Cow<'_, str> = match value.as_ref() {
            Value::Text(text) | Value::Number(text) => Cow::Borrowed(text),
            _ => Cow::Borrowed(""),
        };
        let found = choices.iter().find(|(name, _)| *name == word);
        found.map(|(_, meaning)| *meaning).or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            // Numbers are near to each other by chance.
            let near = nearest(&word, names.iter().copied()).filter(|_| word.contains(|c: char| c.is_alphabetic()));
            let near = near.map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default();
            let names = if names.len() > 2 { format!("one of {}", names.join(", ")) } else { names.join(" or ") };
            self.refuse(format!("must be {names}, not {}{near}", self.kind()))
        })
    }

    /// A name of 1 to `longest` characters that `allowed` (told as `set`) accepts.
    pub(super) fn name(&self, longest: usize, set: &str, allowed: fn(u8) -> bool) -> Option<String> {
        let text = self.text()?;
        if (1..=longest).contains(&text.len()) && text.bytes().all(allowed) {
            return Some(text);
        }
        self.refuse(format!("must be 1 to {longest} characters out of {set}, not {}", self.shown()))
    }

    /// The text of an amount: a number, or a text with a unit.
    fn amount(&self, what: &str) -> Option<String> {
        match self.scalar()?.into_owned() {
            Value::Number(text) | Value::Text(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                self.refuse(format!("must be {what}, not {}", self.kind()))
            }
        }
    }

    /// Complains.
    fn refuse<T>(&self, message: String) -> Option<T> {
        self.error(message);
        None
    }
}
