//! The sentence of a rejection, put together only when it is sent.

use std::fmt;

use crate::config::PathForms;

#[derive(thiserror::Error, Debug)]
pub(super) enum Message<'a> {
    #[error("{0}")]
    Fixed(&'static str),
    #[error("The request is malformed: {0}.")]
    Malformed(&'static str),
    #[error("The path contains %{0:02X}, which no path may contain.")]
    ForbiddenByte(u8),
    #[error("The path can be read in more than one way. Send it without {}.", sign_of(*.0))]
    Ambiguous(PathForms),
    #[error(
        "The limit \"{limit}\" of {count} requests in {} is used up. Try again in {}.",
        Seconds((*window_s).into()),
        Seconds(*retry_after_s)
    )]
    UsedUp { limit: &'a str, count: u32, window_s: u32, retry_after_s: u64 },
    #[error(
        "This request counts as {cost}, more than the limit \"{limit}\" of {count} requests in {} ever admits.",
        Seconds((*window_s).into())
    )]
    NeverEnough { limit: &'a str, count: u32, cost: u32, window_s: u32 },
    #[error("The token has reached its limit of {0} open calls. Try again when one of them has ended.")]
    TooManyCalls(u32),
    #[error("The token has reached its limit of {0} requests in flight. Try again when one of them has ended.")]
    TooManyInFlight(u32),
    #[error("The token lacks the permission \"{0}\".")]
    Lacking(&'a str),
}

/// The first of these forms, for people.
fn sign_of(forms: PathForms) -> &'static str {
    PathForms::SIGNS.iter().find(|(form, _)| form.without(forms).is_empty()).map_or("", |(_, sign)| sign)
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
