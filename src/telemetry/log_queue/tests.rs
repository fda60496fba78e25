//! The queue with an output that stalls, fails and panics.

use std::sync::mpsc::Sender;
use std::time::Instant;

use super::*;

/// An output that waits for a word before each write.
struct Output {
    words: Receiver<Word>,
    next: Word,
    written: Arc<Mutex<Vec<u8>>>,
    writes: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Word {
    Take,
    /// Takes seven bytes, and then fails.
    Cut,
    Panic,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.next == Word::Cut {
            self.next = Word::Take;
            return Err(io::ErrorKind::StorageFull.into());
        }
        // Without a sender there is nothing to wait for.
        self.next = self.words.recv().unwrap_or(Word::Take);
        assert!(self.next != Word::Panic, "the output panics, as the test demands");
        self.writes.fetch_add(1, Ordering::Relaxed);
        let bytes = if self.next == Word::Cut { &bytes[..7] } else { bytes };
        self.written.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Queue {
    writer: LogWriter,
    guard: Option<LogGuard>,
    word: Option<Sender<Word>>,
    written: Arc<Mutex<Vec<u8>>>,
    writes: Arc<AtomicUsize>,
}

impl Queue {
    fn new() -> Self {
        let (word, words) = channel();
        let (written, writes) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<AtomicUsize>::default());
        let output = Output { words, next: Word::Take, written: written.clone(), writes: writes.clone() };
        let (writer, guard) = LogWriter::start(output, LineFormat::Json, Counter::default()).unwrap();
        Self { writer, guard: Some(guard), word: Some(word), written, writes }
    }

    fn text(&self) -> String {
        String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
    }

    fn lost(&self) -> u64 {
        self.writer.queue.lost.get()
    }

    /// From here on the output takes everything.
    fn let_go(&mut self) {
        self.word = None;
    }

    fn wait(&self, what: &str, is_true: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_true(self) {
            assert!(Instant::now() < deadline, "{what} does not come: {}", self.text());
            thread::yield_now();
        }
    }
}

fn write(writer: &LogWriter, line: &str) {
    writer.write_line(|block| {
        block.push_str(line);
        block.push('\n');
    });
}

#[test]
fn lines_of_all_workers_are_whole_in_order_and_written_together() {
    const LINES: usize = 20_000;
    let mut queue = Queue::new();
    queue.let_go();
    thread::scope(|scope| {
        for worker in 0..4 {
            let writer = queue.writer.for_worker();
            scope.spawn(move || (0..LINES).for_each(|line| write(&writer, &format!("{worker} {line} end"))));
        }
        for line in 0..100 {
            queue.writer.clone().write_all(format!("diagnostics {line} end\n").as_bytes()).unwrap();
        }
    });
    drop(queue.guard.take());
    let (text, mut next) = (queue.text(), std::collections::HashMap::<&str, usize>::new());
    for line in text.lines() {
        let parts: Vec<_> = line.split(' ').collect();
        let &[writer, number, "end"] = &parts[..] else { panic!("{line:?}") };
        let expected = next.entry(writer).or_default();
        assert_eq!(number.parse(), Ok(*expected), "{writer}");
        *expected += 1;
    }
    assert!((0..4).all(|worker| next[&*worker.to_string()] == LINES) && next["diagnostics"] == 100);
    let writes = queue.writes.load(Ordering::Relaxed);
    assert!(writes < LINES / 10, "{writes} writes");
    assert_eq!(lock(&queue.writer.queue.buffers).len(), 1, "the buffers of writers that are gone are gone");
}

#[test]
fn a_single_line_is_written_soon() {
    let mut queue = Queue::new();
    queue.let_go();
    for round in 1..=50 {
        // The thread sleeps, or is about to.
        if round % 2 == 0 {
            queue.wait("its sleep", |queue| queue.writer.queue.is_asleep.load(Ordering::Relaxed));
        }
        write(&queue.writer, "a line");
        queue.wait("the line", |queue| queue.text().lines().count() == round);
    }
}

#[test]
fn a_stalled_output_costs_lines_and_a_bounded_number_of_bytes() {
    let mut queue = Queue::new();
    let line = "x".repeat(1_000);
    let writers = [queue.writer.clone(), queue.writer.for_worker()];
    (0..100_000).for_each(|number| write(&writers[number % 2], &line));
    let lost = queue.lost();
    let kept = (100_000 - lost) as usize;
    let most = MAX_QUEUED_BYTES + 2 * MAX_BATCH_BYTES + 2 * (BLOCK_BYTES + line.len());
    assert!(kept * (line.len() + 1) <= most, "{kept} lines are kept");
    assert!(kept * (line.len() + 1) > MAX_QUEUED_BYTES / 2, "{kept} lines are kept");
    queue.let_go();
    queue.wait("the loss", |queue| queue.text().contains("log lines were lost"));
    drop(queue.guard.take());
    let text = queue.text();
    assert_eq!(text.matches(&line).count(), kept);
    assert!(text.ends_with(&format!(",\"lost\":{lost}}}\n")), "{}", &text[text.len() - 200..]);
    assert_eq!(queue.writer.queue.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_line_cut_by_a_full_disk_is_counted_and_the_next_is_whole() {
    let mut queue = Queue::new();
    queue.word.as_ref().unwrap().send(Word::Cut).unwrap();
    write(&queue.writer, "a line that is cut");
    queue.wait("the loss", |queue| queue.lost() > 0);
    queue.let_go();
    write(&queue.writer, "a whole line");
    queue.wait("the line", |queue| queue.text().contains("a whole line"));
    drop(queue.guard.take());
    let text = queue.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], queue.lost()), ("a line ", 1), "{text}");
    assert!(
        lines[1..].contains(&"a whole line") && lines[1..].iter().any(|line| line.contains("\"lost\":1")),
        "{text}"
    );
}

#[test]
fn nothing_is_lost_when_the_thread_panics() {
    let mut queue = Queue::new();
    queue.word.as_ref().unwrap().send(Word::Panic).unwrap();
    (0..100).for_each(|line| write(&queue.writer, &format!("line {line}")));
    queue.let_go();
    drop(queue.guard.take());
    let expected: String = (0..100).map(|line| format!("line {line}\n")).collect();
    assert_eq!((queue.text(), queue.lost()), (expected, 0));
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let mut queue = Queue::new();
    write(&queue.writer, "a line that nobody takes");
    let began = Instant::now();
    drop(queue.guard.take());
    assert!(began.elapsed() < MAX_END_WAIT * 10);
    assert_eq!(queue.text(), "");
}
