//! Certificates of the HTTPS listener: bad ones, old ones.

mod commands;
mod validity;
