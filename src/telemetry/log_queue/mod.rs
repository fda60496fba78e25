//! The queue of log lines. Each worker writes its lines into a buffer of its own, and one thread gathers them all a few milliseconds later
//! and writes them with one system call. It is bounded in bytes, so that a reader of standard output that stalls costs lines and not
//! memory.

mod output;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use super::cells::Counter;
use super::line_format::LineFormat;

use output::{LogOutput, MAX_BATCH_BYTES};

/// Bytes of full blocks that wait to be written.
pub(super) const MAX_QUEUED_BYTES: usize = 32 << 20;
/// A block is full at this size. Lines of a worker that nobody gathers are in blocks.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;
/// The longest time that a line waits for others.
const GATHER_TIME: Duration = Duration::from_millis(3);
/// How long the end waits for a standard output that is not read.
const MAX_END_WAIT: Duration = Duration::from_secs(1);

/// Takes lines; never waits for standard output. Clones share a buffer.
#[derive(Clone)]
pub(super) struct LogWriter {
    queue: Arc<LogQueue>,
    buffer: Arc<LineBuffer>,
}

/// What all writers share. Requests only read it.
pub(super) struct LogQueue {
    buffers: Mutex<Vec<Arc<LineBuffer>>>,
    /// Bytes of full blocks.
    bytes: AtomicUsize,
    lost: Counter,
    /// There was nothing to write: the first line wakes the thread.
    is_asleep: AtomicBool,
    is_over: AtomicBool,
    thread: OnceLock<Thread>,
    /// Disconnected when the thread has written everything.
    written: Mutex<Receiver<()>>,
}

/// The lines of one writer, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct LineBuffer(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    full: VecDeque<String>,
    /// What lines are written into.
    block: String,
}

/// When this is dropped, what is queued is written.
pub struct LogGuard(pub(super) Arc<LogQueue>);

impl LogWriter {
    /// A queue to `output`, and its first writer. Lines that are lost are counted.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        format: LineFormat,
        lost: Counter,
    ) -> io::Result<(Self, LogGuard)> {
        let buffer = Arc::<LineBuffer>::default();
        let (writes, written) = channel();
        let queue = Arc::new(LogQueue {
            buffers: Mutex::new(vec![buffer.clone()]),
            bytes: AtomicUsize::new(0),
            lost: lost.clone(),
            is_asleep: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            thread: OnceLock::new(),
            written: Mutex::new(written),
        });
        let (of_thread, mut output) = (queue.clone(), LogOutput::new(output, format, lost));
        let thread = thread::Builder::new().name("callgate-log".to_owned()).spawn(move || {
            // What an output that panics did not take is written in the next round.
            while catch_unwind(AssertUnwindSafe(|| of_thread.run(&mut output))).is_err() {
                thread::sleep(GATHER_TIME);
            }
            drop(writes);
        })?;
        // It was not set before.
        let _ = queue.thread.set(thread.thread().clone());
        Ok((Self { queue: queue.clone(), buffer }, LogGuard(queue)))
    }

    /// Another writer, with a buffer of its own.
    pub(super) fn for_worker(&self) -> Self {
        let buffer = Arc::<LineBuffer>::default();
        lock(&self.queue.buffers).push(buffer.clone());
        Self { queue: self.queue.clone(), buffer }
    }

    /// Writes a whole line with `write`, or drops it.
    pub(super) fn write_line(&self, write: impl FnOnce(&mut String)) {
        let mut lines = lock(&self.buffer.0);
        if lines.block.len() >= BLOCK_BYTES && !self.queue.take_full(&mut lines) {
            self.queue.lost.inc();
            return;
        }
        let is_first = lines.block.is_empty();
        write(&mut lines.block);
        drop(lines);
        if is_first && self.queue.is_asleep.load(Ordering::Relaxed) {
            self.queue.wake();
        }
    }
}

impl Write for LogWriter {
    /// Takes a whole line or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_line(|block| block.push_str(&String::from_utf8_lossy(line)));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogQueue {
    /// Queues a full block, if there is room.
    fn take_full(&self, lines: &mut Lines) -> bool {
        let size = lines.block.len();
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_QUEUED_BYTES {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return false;
        }
        let next = String::with_capacity(size);
        lines.full.push_back(mem::replace(&mut lines.block, next));
        self.wake();
        true
    }

    fn wake(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
        self.thread.get().inspect(|thread| thread.unpark());
    }

    /// Writes what was queued before this. What comes later is lost.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.wake();
        // Nothing is ever sent: this ends with the thread, or too late for a reader that has stalled.
        let _ = lock(&self.written).recv_timeout(MAX_END_WAIT);
    }

    /// Writes what comes until it is over.
    fn run(&self, output: &mut LogOutput<impl Write>) {
        // What was written before the end is gathered after it.
        while !self.is_over.load(Ordering::Acquire) {
            if !self.write_all(output) {
                self.sleep();
            }
            // Full blocks and the end come sooner.
            thread::park_timeout(GATHER_TIME);
        }
        self.write_all(output);
    }

    /// Waits for a line. Whoever writes the first one after this has looked into its buffer knows that it must wake this thread, because
    /// both of them lock that buffer.
    fn sleep(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        while self.is_asleep.load(Ordering::Relaxed)
            && !self.is_over.load(Ordering::Acquire)
            && lock(&self.buffers).iter().all(|buffer| buffer.is_empty())
        {
            thread::park();
        }
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Writes the lines of all buffers; returns whether there were any.
    fn write_all(&self, output: &mut LogOutput<impl Write>) -> bool {
        // No lock may be held while standard output is waited for.
        let buffers = lock(&self.buffers).clone();
        let mut has_written = false;
        for buffer in &buffers {
            while let Some((mut block, is_full)) = buffer.next() {
                has_written = true;
                if is_full {
                    self.bytes.fetch_sub(block.len(), Ordering::Relaxed);
                }
                output.push(&block);
                if !is_full {
                    block.clear();
                    buffer.give_back(block);
                    break;
                }
            }
        }
        output.flush();
        drop(buffers);
        // Nobody can write into a buffer that only this list has.
        lock(&self.buffers).retain(|buffer| Arc::strong_count(buffer) > 1 || !buffer.is_empty());
        has_written
    }
}

impl LineBuffer {
    fn is_empty(&self) -> bool {
        let lines = lock(&self.0);
        lines.full.is_empty() && lines.block.is_empty()
    }

    /// The oldest block, and whether it is full.
    fn next(&self) -> Option<(String, bool)> {
        let mut lines = lock(&self.0);
        if let Some(full) = lines.full.pop_front() {
            return Some((full, true));
        }
        Some((mem::take(&mut lines.block), false)).filter(|(block, _)| !block.is_empty())
    }

    /// Takes a block's memory for further lines, if they have none yet.
    fn give_back(&self, block: String) {
        let mut lines = lock(&self.0);
        if lines.block.capacity() == 0 {
            lines.block = block;
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// A batch has room for a block.
const _: () = assert!(BLOCK_BYTES <= MAX_BATCH_BYTES);
