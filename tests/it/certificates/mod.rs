//! Certificates of the HTTPS listener: bad ones, old ones, and the sessions of clients.

mod commands;
mod tickets;
mod validity;
