//! Fields as numbers, sizes, durations, choices and names; each says what is allowed when it finds something else.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::units::{format_duration, format_size, parse_duration, parse_size};
use super::yaml::YamlValue;
use super::{Field, did_you_mean};

impl Field<'_> {
    /// `true` or `false`.
    pub(crate) fn flag(&self) -> Option<bool> {
        match self.scalar()?.as_ref() {
            YamlValue::Bool(value) => Some(*value),
            _ => self.refuse("true or false", ""),
        }
    }

    /// A whole number in `range`.
    pub(crate) fn number<T: FromStr + Display + PartialOrd>(&self, range: RangeInclusive<T>) -> Option<T> {
        let scalar = self.scalar()?;
        let number = match scalar.as_ref() {
            YamlValue::Number(text) => text.parse().ok().filter(|number| range.contains(number)),
            _ => None,
        };
        number.or_else(|| {
            let is_quoted = matches!(scalar.as_ref(), YamlValue::Text(text) if text.parse::<T>().is_ok());
            let remedy = if is_quoted { " (remove the quotes)" } else { "" };
            self.refuse(&format!("a whole number from {} to {}", range.start(), range.end()), remedy)
        })
    }

    /// A number from 0 to 1.
    pub(crate) fn fraction(&self) -> Option<f64> {
        let number = match self.scalar()?.as_ref() {
            YamlValue::Number(text) => text.parse().ok().filter(|number| (0.0..=1.0).contains(number)),
            _ => None,
        };
        self.must_be("a number from 0 to 1 (for example 0.1 for one of ten)", number)
    }

    /// A value as `read` understands it, or `none` (the inner `None`).
    pub(crate) fn or_none<T>(&self, read: impl FnOnce(&Self) -> Option<T>) -> Option<Option<T>> {
        if self.scalar()?.is_text("none") { Some(None) } else { read(self).map(Some) }
    }

    /// A share from 0% to 100%. `examples` are for people.
    pub(crate) fn percent<T: FromStr + PartialOrd + From<u8>>(&self, examples: &str) -> Option<T> {
        let scalar = self.scalar()?;
        let number = match scalar.as_ref() {
            YamlValue::Text(text) => text.strip_suffix('%').and_then(|number| number.parse().ok()),
            _ => None,
        };
        let in_range = number.filter(|number| (T::from(0)..=T::from(100)).contains(number));
        in_range.or_else(|| self.refuse(&format!("a share from 0% to 100% (for example {examples})"), ""))
    }

    /// A number of bytes in `range`, bare or with its unit.
    pub(crate) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let text = self.amount("a size (for example 65536, 64KiB, 1GiB or 1MB)")?;
        let size = parse_size(&text).map_err(|message| format!("{message}, not {}", self.shown()));
        let size = self.accept(size)?;
        self.within(size, &range, format_size)
    }

    /// A size that memory holds.
    pub(crate) fn buffer(&self, range: RangeInclusive<u64>) -> Option<usize> {
        self.size(range).and_then(|size| usize::try_from(size).ok())
    }

    /// A duration in `range`, with its unit.
    pub(crate) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.amount("a duration (for example 50ms, 10s, 4h or 1h30m)")?;
        // Zero needs no unit to be understood.
        let zero = if text == "0" && range.contains(&Duration::ZERO) { "0s" } else { &text };
        let duration = self.accept(parse_duration(zero))?;
        self.within(duration, &range, format_duration)
    }

    /// One of a few words, and what it stands for.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let scalar = self.scalar()?;
        let word = match scalar.as_ref() {
            YamlValue::Text(text) | YamlValue::Number(text) => text,
            _ => "",
        };
        let found = choices.iter().find(|(name, _)| *name == word);
        found.map(|(_, meaning)| *meaning).or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            // Numbers are near to each other by chance.
            let is_word = word.contains(|c: char| c.is_alphabetic());
            let near = if is_word { did_you_mean(word, names.iter().copied()) } else { String::new() };
            let names = if names.len() > 2 { format!("one of {}", names.join(", ")) } else { names.join(" or ") };
            self.refuse(&names, &near)
        })
    }

    /// A name of 1 to `max` characters out of a set such as `A-Z a-z 0-9 _ . -`.
    pub(crate) fn name(&self, max: usize, set: &str) -> Option<String> {
        let text = self.text()?;
        let is_name = is_name(&text, max, set);
        self.must_be(&format!("1 to {max} characters out of {set}"), is_name.then_some(text))
    }

    fn within<T: PartialOrd + Copy>(&self, value: T, range: &RangeInclusive<T>, format: fn(T) -> String) -> Option<T> {
        let what = || format!("from {} to {}", format(*range.start()), format(*range.end()));
        if range.contains(&value) { Some(value) } else { self.must_be(&what(), None) }
    }

    /// The text of an amount: a number, or a text with a unit.
    fn amount(&self, what: &str) -> Option<String> {
        match self.scalar()?.into_owned() {
            YamlValue::Number(text) | YamlValue::Text(text) => Some(text),
            _ => self.refuse(what, ""),
        }
    }
}

/// Whether `text` is 1 to `max` characters out of a set such as `A-Z a-z 0-9 _ . -`: ranges and single characters.
pub(crate) fn is_name(text: &str, max: usize, set: &str) -> bool {
    let is_in_set = |byte: u8| {
        set.split(' ').any(|part| match *part.as_bytes() {
            [first, b'-', last] => (first..=last).contains(&byte),
            [single] => byte == single,
            _ => false,
        })
    };
    (1..=max).contains(&text.len()) && text.bytes().all(is_in_set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_ranges_and_single_characters() {
        let set = "A-Z 0-9 _ -";
        for (text, expected) in [("A9_-", true), ("", false), ("AAAAA", false), ("a", false), ("A B", false)] {
            assert_eq!(is_name(text, 4, set), expected, "{text:?}");
        }
    }
}
