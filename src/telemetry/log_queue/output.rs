//! Writes log lines to standard output, whatever becomes of it. Lines that can't be written are counted like those that did not fit into
//! the queue, and one line tells of all of them afterwards.

use std::io::{self, Write};
use std::mem;
use std::time::{Duration, Instant};

use super::super::cells::Counter;
use super::super::line_format::LineFormat;

/// Bytes that one write may have.
pub(super) const MAX_BATCH_BYTES: usize = 128 * 1024;
/// Losses are told of once in so long.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// A pause for a standard output that doesn't block and is full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// The end of the queue, on a thread of its own, which alone may wait for standard output.
pub(super) struct LogOutput<W> {
    output: W,
    format: LineFormat,
    lost: Counter,
    batch: Vec<u8>,
    /// Bytes of the batch that were written.
    written: usize,
    /// The last thing that was written is a part of a line.
    is_cut: bool,
    /// How many lost lines were told of.
    told: u64,
    last_told: Option<Instant>,
    last_complaint: Option<Instant>,
}

impl<W: Write> LogOutput<W> {
    pub(super) fn new(output: W, format: LineFormat, lost: Counter) -> Self {
        Self {
            output,
            format,
            told: lost.get(),
            lost,
            batch: Vec::new(),
            written: 0,
            is_cut: false,
            last_told: None,
            last_complaint: None,
        }
    }

    /// Adds whole lines to the batch, and writes it when it is large enough.
    pub(super) fn push(&mut self, lines: &str) {
        if self.batch.len() + lines.len() > MAX_BATCH_BYTES {
            self.write_batch();
        }
        self.batch.extend_from_slice(lines.as_bytes());
    }

    /// Writes what is left of the batch, and how many lines were lost.
    pub(super) fn flush(&mut self) {
        self.write_batch();
        self.tell_losses();
        self.write_batch();
    }

    fn write_batch(&mut self) {
        if self.is_cut && !self.batch.is_empty() && self.output.write(b"\n").is_ok_and(|written| written == 1) {
            self.is_cut = false;
        }
        while self.written < self.batch.len() {
            match self.output.write(&self.batch[self.written..]) {
                Ok(0) => break,
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
                Err(error) => {
                    if is_due(&mut self.last_complaint) {
                        // Nobody else can be told. Standard error may be gone, too.
                        let _ = writeln!(
                            io::stderr(),
                            "callgate: log lines are lost, because they can't be written: {error}"
                        );
                    }
                    break;
                }
            }
        }
        let (written, rest) = self.batch.split_at(mem::take(&mut self.written));
        if let Some(last) = written.last() {
            self.is_cut = *last != b'\n';
        }
        self.lost.inc_by(memchr::memchr_iter(b'\n', rest).count() as u64);
        self.batch.clear();
    }

    /// A line on what was lost since the last one.
    fn tell_losses(&mut self) {
        let lost = self.lost.get();
        if lost == self.told || !is_due(&mut self.last_told) {
            return;
        }
        let (new, time) = (lost - self.told, humantime::format_rfc3339_micros(std::time::SystemTime::now()));
        let message = format!("{new} log lines were lost, because standard output or log.file did not take them");
        let line = match self.format {
            LineFormat::Json => {
                format!("{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{message}\",\"lost\":{new}}}\n")
            }
            LineFormat::Human { .. } => format!("{time}  WARN {message}\n"),
        };
        self.told = lost;
        self.batch.extend_from_slice(line.as_bytes());
    }
}

/// Whether the last time is long enough ago; if so, it is now.
fn is_due(last: &mut Option<Instant>) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= WARN_INTERVAL);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}
