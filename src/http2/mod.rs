//! What stands between h2 and a connection's bytes: a fault of one stream must not end the others on its connection.

mod answers;
mod field_block;
mod frame;
mod frame_guard;
mod huffman;
#[cfg(test)]
mod tests;

pub(crate) use frame_guard::FrameGuard;
