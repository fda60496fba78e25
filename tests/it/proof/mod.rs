//! The standing proof of the limiter, all from outside: real programs, a real Redis, real networks between them that fail, and a
//! judge that replays every answer.

mod calls;
mod chaos;
mod events;
mod fleet;
mod judge;
mod law;
mod outages;
