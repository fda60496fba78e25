//! Which endpoint gets a request, ejections, retries, and the caps on an upstream: whole installations.

mod caps;
mod connections;
mod ejection;
mod halves;
mod health;
mod retries;
mod rollout;
mod sharing;
mod stage;
