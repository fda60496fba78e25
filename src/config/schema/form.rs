//! The forms that values of the configuration may have.

/// A key of a section.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: &'static Form,
    pub(super) required: bool,
    /// Its description, where the comments of `config/callgate.yaml` have none of it alone.
    pub(super) description: Option<&'static str>,
    /// Whether the value in `config/callgate.yaml` is an example, and there is no default.
    pub(super) example: bool,
}

/// The form of a value. A text may have `${VAR}` in it, so each form but lists and maps allows that, too.
pub(super) enum Form {
    /// `true` or `false`.
    Flag,
    /// A whole number: the least, and the most.
    Number(u64, u64),
    /// A duration: the shortest, and the longest.
    Duration(&'static str, &'static str),
    /// A size: the smallest, and the largest.
    Size(&'static str, &'static str),
    /// A share from 0% to 100%, a whole number of percent.
    Percent,
    /// The same with decimals.
    Share,
    /// A number from 0 to 1.
    Fraction,
    /// One of these words.
    Words(&'static [&'static str]),
    /// At most so many characters out of a set such as `A-Z a-z 0-9 _ -`.
    Name(usize, &'static str),
    /// Any text; the first word says what it is.
    Text(&'static str),
    /// A text that matches a regular expression; the first word says what it is.
    Pattern(&'static str, &'static str),
    /// A list, with at least so many items.
    List(&'static Form, usize),
    /// A single value, or a list with at least so many.
    OneOrList(&'static Form, usize),
    /// A map whose keys the operator chooses: the form of a key, that of a value, and the least number of them.
    Named(&'static Form, &'static Form, usize),
    /// A map with these keys.
    Section(&'static [Key]),
    /// One of several forms.
    Either(&'static [&'static Form]),
}

pub(super) const fn key(name: &'static str, form: &'static Form) -> Key {
    Key { name, form, required: false, description: None, example: false }
}

impl Key {
    pub(super) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub(super) const fn says(self, description: &'static str) -> Self {
        Self { description: Some(description), ..self }
    }

    pub(super) const fn example(self) -> Self {
        Self { example: true, ..self }
    }
}

impl Form {
    /// The keys of a section at this value, of an item of this list, or behind a name of this map.
    pub(super) fn keys(&self) -> &'static [Key] {
        match self {
            Self::Section(keys) => keys,
            Self::List(of, _) | Self::OneOrList(of, _) => of.keys(),
            Self::Either(forms) => forms.iter().map(|form| form.keys()).find(|keys| !keys.is_empty()).unwrap_or(&[]),
            Self::Flag
            | Self::Number(..)
            | Self::Duration(..)
            | Self::Size(..)
            | Self::Percent
            | Self::Share
            | Self::Fraction
            | Self::Words(_)
            | Self::Name(..)
            | Self::Text(_)
            | Self::Pattern(..)
            | Self::Named(..) => &[],
        }
    }

    /// The form of what a map with names of the operator's choice holds.
    pub(super) fn named(&self) -> Option<&'static Form> {
        match self {
            Self::Named(_, of, _) => Some(of),
            Self::Either(forms) => forms.iter().find_map(|form| form.named()),
            _ => None,
        }
    }

    /// What follows the path of this value in the path of its keys: `[]` for a list.
    pub(super) fn suffix(&self) -> &'static str {
        if matches!(self, Self::List(..) | Self::OneOrList(..)) { "[]" } else { "" }
    }
}
