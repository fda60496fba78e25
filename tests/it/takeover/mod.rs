//! A new process takes over from the one that runs: by a Unix socket, or with the sockets of systemd.

mod activation;
mod failures;
mod limits;
mod load;
