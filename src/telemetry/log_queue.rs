//! The queue of log lines: bounded in bytes, so that a reader of standard output that stalls costs lines and not memory. Lines that are
//! lost, here or because they can't be written, are counted, and one line tells of them afterwards.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::config::LogFormat;

/// Bytes of lines that wait to be written.
const MAX_QUEUED_BYTES: usize = 32 << 20;
/// What a line takes besides its text. It bounds the number of lines, too.
const LINE_OVERHEAD: usize = 256;
/// Bytes that one write may have.
const MAX_BATCH_BYTES: usize = 64 * 1024;
/// Losses are told of once in so long.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// A pause for a standard output that doesn't block and is full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// What both ends of the queue know.
#[derive(Default)]
pub(super) struct QueueState {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

impl QueueState {
    /// Lines that were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Puts lines into the queue; never waits.
#[derive(Clone)]
pub(super) struct LogWriter {
    inner: NonBlocking,
    state: Arc<QueueState>,
}

impl LogWriter {
    /// A queue to `output`. When the guard is dropped, what is queued is written.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        format: LogFormat,
    ) -> (Self, WorkerGuard, Arc<QueueState>) {
        let state = Arc::<QueueState>::default();
        let sink = Sink {
            output,
            format,
            state: state.clone(),
            batch: Vec::with_capacity(MAX_BATCH_BYTES),
            is_cut: false,
            told: 0,
            last_told: None,
            last_complaint: None,
        };
        // As many places as lines can be: what the bytes admit is never refused.
        let builder = NonBlockingBuilder::default().buffered_lines_limit(MAX_QUEUED_BYTES / LINE_OVERHEAD + 1);
        let (inner, guard) = builder.thread_name("callgate-log").finish(sink);
        (Self { inner, state: state.clone() }, guard, state)
    }
}

impl Write for LogWriter {
    /// Takes a whole line or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let size = line.len() + LINE_OVERHEAD;
        if self.state.bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_QUEUED_BYTES {
            self.state.bytes.fetch_sub(size, Ordering::Relaxed);
            self.state.lost.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        self.inner.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end of the queue, on a thread of its own, which alone may wait for standard output.
struct Sink<W> {
    output: W,
    format: LogFormat,
    state: Arc<QueueState>,
    batch: Vec<u8>,
    /// The last thing that was written is a part of a line.
    is_cut: bool,
    /// How many lost lines were told of.
    told: u64,
    last_told: Option<Instant>,
    last_complaint: Option<Instant>,
}

impl<W: Write> Sink<W> {
    fn write_batch(&mut self) {
        let mut rest = &self.batch[..];
        if self.is_cut && !rest.is_empty() && self.output.write(b"\n").is_ok_and(|written| written == 1) {
            self.is_cut = false;
        }
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
                Err(error) => {
                    if is_due(&mut self.last_complaint) {
                        // Nobody else can be told.
                        eprintln!(
                            "callgate: log lines are lost, because they can't be written to standard output: {error}"
                        );
                    }
                    break;
                }
            }
        }
        let written = self.batch.len() - rest.len();
        if written > 0 {
            self.is_cut = self.batch[written - 1] != b'\n';
        }
        let lost = memchr::memchr_iter(b'\n', rest).count() as u64;
        self.state.lost.fetch_add(lost, Ordering::Relaxed);
        self.batch.clear();
    }

    /// A line on what was lost since the last one.
    fn tell_losses(&mut self) {
        let lost = self.state.lost();
        if lost == self.told || !is_due(&mut self.last_told) {
            return;
        }
        let (new, time) = (lost - self.told, humantime::format_rfc3339_micros(std::time::SystemTime::now()));
        let message = format!("{new} log lines were lost, because standard output did not take them");
        let line = match self.format {
            LogFormat::Json => {
                format!("{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{message}\",\"lost\":{new}}}\n")
            }
            LogFormat::Human => format!("{time}  WARN {message}\n"),
        };
        self.told = lost;
        self.batch.extend_from_slice(line.as_bytes());
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.state.bytes.fetch_sub(line.len() + LINE_OVERHEAD, Ordering::Relaxed);
        self.batch.extend_from_slice(line);
        if self.batch.len() >= MAX_BATCH_BYTES {
            self.write_batch();
        }
        Ok(line.len())
    }

    /// Called when the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        self.write_batch();
        self.tell_losses();
        self.write_batch();
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// An output that waits for a word before each write, and fails on demand. It takes seven bytes of a write that is to fail.
    struct Output {
        words: mpsc::Receiver<bool>,
        written: Arc<Mutex<Vec<u8>>>,
        fails: bool,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if std::mem::take(&mut self.fails) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            // Without a sender there is nothing to wait for.
            self.fails = self.words.recv().is_ok_and(|works| !works);
            let bytes = if self.fails { &bytes[..7] } else { bytes };
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (LogWriter, WorkerGuard, mpsc::Sender<bool>, Arc<Mutex<Vec<u8>>>) {
        let (word, words) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let output = Output { words, written: written.clone(), fails: false };
        let (writer, guard, _) = LogWriter::start(output, LogFormat::Json);
        (writer, guard, word, written)
    }

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_stalled_output_costs_lines_and_a_bounded_number_of_bytes() {
        let (mut writer, guard, word, written) = queue();
        let line = format!("{}\n", "x".repeat(1_000));
        for _ in 0..100_000 {
            writer.write_all(line.as_bytes()).unwrap();
        }
        let lost = writer.state.lost();
        let kept = (100_000 - lost) as usize;
        assert!(kept * line.len() <= MAX_QUEUED_BYTES + 2 * MAX_BATCH_BYTES, "{kept} lines are kept");
        assert!(kept * (line.len() + LINE_OVERHEAD) > MAX_QUEUED_BYTES / 2, "{kept} lines are kept");
        drop(word);
        while !text(&written).contains("log lines were lost") {
            std::thread::yield_now();
        }
        drop(guard);
        let text = text(&written);
        assert_eq!(text.matches(&line).count(), kept);
        assert!(text.ends_with(&format!(",\"lost\":{lost}}}\n")), "{}", &text[text.len() - 200..]);
        assert_eq!(writer.state.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_line_cut_by_a_full_disk_is_counted_and_the_next_is_whole() {
        let (mut writer, guard, word, written) = queue();
        word.send(false).unwrap();
        writer.write_all(b"a line that is cut\n").unwrap();
        while writer.state.lost() == 0 {
            std::thread::yield_now();
        }
        drop(word);
        writer.write_all(b"a whole line\n").unwrap();
        while !text(&written).contains("a whole line") {
            std::thread::yield_now();
        }
        drop(guard);
        let text = text(&written);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], writer.state.lost()), ("a line ", 1), "{text}");
        assert!(
            lines[1..].contains(&"a whole line") && lines[1..].iter().any(|line| line.contains("\"lost\":1")),
            "{text}"
        );
    }
}
