//! Who gets a request, who is left out, what is tried again, and how much an upstream is given: whole installations.

mod caps;
mod connections;
mod ejection;
mod halves;
mod health;
mod retries;
mod rollout;
mod sharing;
mod stage;
