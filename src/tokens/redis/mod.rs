//! Token records in Redis, one hash per token, found by one key.
//!
//! `<ns>:{<id>}:token` is a hash with the fields `version` (decimal) and `record` (JSON). The version is the server's time in
//! microseconds and always above the previous one: no two writes share one, not even when a record is deleted and made again.
//! The fields `used` (Unix seconds) and `requests` tell of its use and change no version; `audit` holds entries of the audit trail that
//! are not in the trail yet.
//! `<ns>:{<id>}:usage` is a string with 12 bytes for each hour in which the token was used, the oldest first, for thirty days: hours
//! since 1970, admitted and refused requests, each a big-endian number of 4 bytes. `<ns>:{refused}:<n>` are sorted sets of the tokens
//! that were refused the most in the n-th ten minutes since 1970, for two hours.
//! `<ns>:tokens` is a sorted set of all ids with the time of their creation in seconds, for listings. The two live in
//! different Cluster slots, so they are written one after the other, the index first: a writer that dies in between leaves an id
//! without a record, which the next listing removes, and never a token that works and isn't listed.

mod actions;
mod import;
mod listing;
mod records;
mod scripts;
mod trail;
mod usage;

pub use records::RedisTokens;
