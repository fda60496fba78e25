//! What logs as bytes consist of: they are passed on to another process of this machine.

/// Bytes that are no logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged logs")]
pub struct DamagedLogs;

/// Appends a text behind its length.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The next text.
pub(super) fn read_text(bytes: &mut &[u8]) -> Result<Box<str>, DamagedLogs> {
    let length = read_u32(bytes)? as usize;
    let text = bytes.split_off(..length).ok_or(DamagedLogs)?;
    Ok(std::str::from_utf8(text).map_err(|_| DamagedLogs)?.into())
}

/// The next four bytes.
pub(super) fn read_u32(bytes: &mut &[u8]) -> Result<u32, DamagedLogs> {
    let (number, rest) = bytes.split_first_chunk().ok_or(DamagedLogs)?;
    *bytes = rest;
    Ok(u32::from_le_bytes(*number))
}

/// The next eight bytes.
pub(super) fn read_u64(bytes: &mut &[u8]) -> Result<u64, DamagedLogs> {
    let (number, rest) = bytes.split_first_chunk().ok_or(DamagedLogs)?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*number))
}
