//! Numbers that each worker counts in memory of its own, and that are summed when somebody looks: no worker waits for a cache line that
//! another one writes to.
//!
//! Each worker has a *sheet*. Some numbers have the same place on all sheets, which their handle knows. A sheet has one writer, so that a
//! load and a store are enough to count. Threads that are no workers share one sheet, and count there with atomic additions. When a
//! worker ends, its sheet stays with all that it counted, and the next worker goes on with it.

use std::cell::Cell;
use std::collections::HashMap;
use std::iter;
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

/// Numbers of a line.
const LINE: usize = 16;
/// Lines of a sheet's first part. Each further part has twice as many as the one before it.
const FIRST_PART: usize = 32;
const MAX_PARTS: usize = 20;

/// Two cache lines, because processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line([AtomicU64; LINE]);

/// What one worker counts. Its parts are made when the first of their numbers is counted, and never move.
#[derive(Default)]
struct Sheet {
    parts: [OnceLock<Box<[Line]>>; MAX_PARTS],
    next: OnceLock<&'static Sheet>,
}

/// The place of some numbers: it is the same on all sheets.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    part: usize,
    index: usize,
}

/// Which places and sheets are used.
#[derive(Default)]
struct Directory {
    /// Where no numbers are yet, up to the end.
    end: Place,
    /// Places whose handles are gone, by how many numbers they have.
    free_places: HashMap<usize, Vec<Place>>,
    /// Sheets whose workers have ended.
    free_sheets: Vec<&'static Sheet>,
}

static DIRECTORY: LazyLock<Mutex<Directory>> = LazyLock::new(Mutex::default);
/// The sheet of all threads that are no workers; the others follow it.
static COMMON: LazyLock<Sheet> = LazyLock::new(Sheet::default);

thread_local! {
    static OWN: Cell<Option<&'static Sheet>> = const { Cell::new(None) };
}

/// While this lives, its thread is a worker and counts in memory of its own.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    /// It belongs to one thread.
    _not_send: PhantomData<*const ()>,
}

impl WorkerThread {
    /// Makes this thread a worker.
    #[must_use]
    pub(crate) fn register() -> Self {
        let known = directory().free_sheets.pop();
        let sheet = known.unwrap_or_else(Sheet::append);
        if let Some(before) = OWN.replace(Some(sheet)) {
            directory().free_sheets.push(before);
        }
        Self { _not_send: PhantomData }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        directory().free_sheets.extend(OWN.take());
    }
}

/// Some numbers of which each worker has its own. They wrap around: what one worker adds, another one may subtract.
#[derive(Debug)]
pub(crate) struct Numbers {
    place: Place,
    len: usize,
}

impl Numbers {
    /// So many, all 0; at most 512.
    pub(crate) fn new(len: usize) -> Self {
        debug_assert!(len <= LINE * FIRST_PART, "a part has room for them");
        let mut directory = directory();
        let known = directory.free_places.get_mut(&len).and_then(Vec::pop);
        Self { place: known.unwrap_or_else(|| directory.append(len)), len }
    }

    /// Adds to one of them.
    pub(crate) fn add(&self, index: usize, number: u64) {
        match OWN.get() {
            Some(own) => {
                let cell = own.cell(self.place_of(index));
                cell.store(cell.load(Relaxed).wrapping_add(number), Relaxed);
            }
            None => {
                COMMON.cell(self.place_of(index)).fetch_add(number, Relaxed);
            }
        }
    }

    /// Replaces this worker's own number.
    pub(crate) fn update(&self, index: usize, next: impl Fn(u64) -> u64) {
        match OWN.get() {
            Some(own) => {
                let cell = own.cell(self.place_of(index));
                cell.store(next(cell.load(Relaxed)), Relaxed);
            }
            None => {
                // It never fails: there always is a next number.
                let _ = COMMON.cell(self.place_of(index)).fetch_update(Relaxed, Relaxed, |now| Some(next(now)));
            }
        }
    }

    /// One of them, as each worker has it.
    pub(crate) fn of_all(&self, index: usize) -> impl Iterator<Item = u64> {
        let place = self.place_of(index);
        sheets().map(move |sheet| sheet.value(place))
    }

    /// The sum of all workers.
    pub(crate) fn sum(&self, index: usize) -> u64 {
        self.of_all(index).fold(0, u64::wrapping_add)
    }

    fn place_of(&self, index: usize) -> Place {
        debug_assert!(index < self.len, "one of {}", self.len);
        Place { index: self.place.index + index, ..self.place }
    }
}

impl Drop for Numbers {
    /// Nobody counts here any longer. Whoever gets the place next finds zeros.
    fn drop(&mut self) {
        let mut directory = directory();
        for place in (0..self.len).map(|index| self.place_of(index)) {
            sheets().for_each(|sheet| sheet.clear(place));
        }
        directory.free_places.entry(self.len).or_default().push(self.place);
    }
}

impl Sheet {
    /// Another sheet, behind all others.
    fn append() -> &'static Self {
        let sheet: &'static Self = Box::leak(Box::default());
        let _alone = directory();
        let last = sheets().last().unwrap_or(&COMMON);
        // Only this function sets it, and it is alone.
        let _ = last.next.set(sheet);
        sheet
    }

    fn cell(&self, place: Place) -> &AtomicU64 {
        let part =
            self.parts[place.part].get_or_init(|| (0..FIRST_PART << place.part).map(|_| Line::default()).collect());
        &part[place.index / LINE].0[place.index % LINE]
    }

    fn value(&self, place: Place) -> u64 {
        self.parts[place.part].get().map_or(0, |part| part[place.index / LINE].0[place.index % LINE].load(Relaxed))
    }

    fn clear(&self, place: Place) {
        if let Some(part) = self.parts[place.part].get() {
            part[place.index / LINE].0[place.index % LINE].store(0, Relaxed);
        }
    }
}

impl Directory {
    /// A place for so many numbers, all on one part.
    fn append(&mut self, len: usize) -> Place {
        if self.end.index + len > LINE * (FIRST_PART << self.end.part) {
            self.end = Place { part: self.end.part + 1, index: 0 };
        }
        let place = self.end;
        self.end.index += len;
        place
    }
}

/// All sheets. New ones come at the end, so that no lock is needed.
fn sheets() -> impl Iterator<Item = &'static Sheet> {
    iter::successors(Some(&*COMMON), |sheet| sheet.next.get().copied())
}

fn directory() -> MutexGuard<'static, Directory> {
    DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn sums_are_exact_while_workers_count_and_after_they_have_ended() {
        const EACH: u64 = 200_000;
        let (numbers, is_over) = (Arc::new(Numbers::new(2)), AtomicBool::new(false));
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut seen, mut looks) = (0, 0_u64);
                while !is_over.load(Relaxed) {
                    let sum = numbers.sum(0);
                    assert!(sum >= seen, "a sum fell from {seen} to {sum}");
                    (seen, looks) = (sum, looks + 1);
                }
                looks
            });
            // Threads that are no workers count beside them, and workers come and go.
            let mut sums = Vec::new();
            for generation in 1..=3 {
                thread::scope(|scope| {
                    for is_worker in [true, true, true, false, false] {
                        let numbers = numbers.clone();
                        scope.spawn(move || {
                            let _worker = is_worker.then(WorkerThread::register);
                            for _ in 0..EACH {
                                numbers.add(0, 1);
                                numbers.add(1, 1_u64.wrapping_neg());
                            }
                        });
                    }
                });
                sums.push((generation * 5 * EACH, [numbers.sum(0), numbers.sum(1).wrapping_neg()]));
            }
            is_over.store(true, Relaxed);
            assert!(sums.iter().all(|(exact, sums)| *sums == [*exact; 2]), "{sums:?}");
            assert!(reader.join().unwrap() > 0);
        });
    }

    #[test]
    fn what_one_worker_adds_another_may_subtract() {
        let numbers = Arc::new(Numbers::new(1));
        let add = |number: u64| {
            let numbers = numbers.clone();
            thread::spawn(move || {
                let _worker = WorkerThread::register();
                (0..1_000).for_each(|_| numbers.add(0, number));
            })
        };
        let threads = [add(1), add(1_u64.wrapping_neg()), add(3), add(3_u64.wrapping_neg())];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(numbers.sum(0), 0);
    }

    #[test]
    fn numbers_that_get_an_old_place_begin_at_zero() {
        let count = |numbers: &Arc<Numbers>| {
            let numbers = numbers.clone();
            thread::spawn(move || {
                let _worker = WorkerThread::register();
                (0..300).for_each(|index| numbers.add(index, 7));
            })
            .join()
            .unwrap();
        };
        // No other test has so many.
        let first = Arc::new(Numbers::new(300));
        count(&first);
        let place = first.place;
        drop(first);
        let second = Arc::new(Numbers::new(300));
        assert_eq!((second.place.part, second.place.index), (place.part, place.index));
        assert!((0..300).all(|index| second.sum(index) == 0));
        count(&second);
        assert!((0..300).all(|index| second.sum(index) == 7));
    }

    #[test]
    fn places_never_overlap() {
        let all: Vec<_> = (0..2_000).map(|number| Numbers::new(1 + number % 19)).collect();
        let mark = |numbers: &Numbers, by: u64| (0..numbers.len).for_each(|index| numbers.add(index, by));
        (1..).zip(&all).for_each(|(by, numbers)| mark(numbers, by));
        for (by, numbers) in (1..).zip(&all) {
            assert!((0..numbers.len).all(|index| numbers.sum(index) == by));
        }
    }
}
