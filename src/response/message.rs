//! The sentence of a rejection, put together only when it is sent.

use std::fmt;

use crate::config::PathForms;

pub(super) enum Message<'a> {
    Fixed(&'static str),
    Malformed(&'static str),
    ForbiddenByte(u8),
    Ambiguous(PathForms),
    UsedUp { limit: &'a str, count: u32, window_s: u32, retry_after_s: u64 },
    NeverEnough { limit: &'a str, count: u32, cost: u32, window_s: u32 },
    TooManyCalls(u32),
    Lacking(&'a str),
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fixed(text) => f.write_str(text),
            Self::Malformed(what) => write!(f, "The request is malformed: {what}."),
            Self::ForbiddenByte(byte) => write!(f, "The path contains %{byte:02X}, which no path may contain."),
            Self::Ambiguous(forms) => {
                let found = PathForms::SIGNS.iter().find(|(form, _)| form.without(forms).is_empty());
                let sign = found.map_or("", |(_, sign)| sign);
                write!(f, "The path can be read in more than one way. Send it without {sign}.")
            }
            Self::UsedUp { limit, count, window_s, retry_after_s } => {
                let (window, wait) = (Seconds(window_s.into()), Seconds(retry_after_s));
                write!(f, "The limit \"{limit}\" of {count} requests in {window} is used up. Try again in {wait}.")
            }
            Self::NeverEnough { limit, count, cost, window_s } => {
                let window = Seconds(window_s.into());
                write!(
                    f,
                    "This request counts as {cost}, more than the limit \"{limit}\" of {count} requests in {window} ever admits."
                )
            }
            Self::TooManyCalls(max_calls) => write!(
                f,
                "The token has reached its limit of {max_calls} open calls. Try again when one of them has ended."
            ),
            Self::Lacking(permission) => write!(f, "The token lacks the permission \"{permission}\"."),
        }
    }
}

impl serde::Serialize for Message<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// "1 second", "60 seconds".
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} second{plural}", self.0)
    }
}
