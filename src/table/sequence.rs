//! A sequence lock: one writer that never waits, readers that try again.
//!
//! The writer makes the number odd, changes the fields (relaxed atomics), and makes it
//! even again. A reader that finds the same even number before and after has read fields
//! that belong together. After H.-J. Boehm, "Can seqlocks get along with programming
//! language memory models?" (2012).

use crate::sync::{AtomicU32, Ordering, fence, spin_loop, yield_now};

/// After so many failed reads the writer was probably taken off its processor.
const SPINS: u32 = 64;

#[derive(Debug)]
pub(crate) struct Sequence(AtomicU32);

impl Sequence {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Changes fields. One thread at a time may write.
    #[inline]
    pub(crate) fn write<R>(&self, change: impl FnOnce() -> R) -> R {
        // Whatever is found, it ends even: a reader must not wait for a writer that is gone.
        let odd = self.0.load(Ordering::Relaxed) | 1;
        self.0.store(odd, Ordering::Relaxed);
        self.written(odd, change)
    }

    /// The number, while nobody writes.
    #[inline]
    pub(crate) fn at_rest(&self) -> Option<u32> {
        // Acquire pairs with the last store of a write, which is seen whole.
        Some(self.0.load(Ordering::Acquire)).filter(|number| number.is_multiple_of(2))
    }

    /// Changes fields where another thread may want to at the same time. Gives `None`, and
    /// changes nothing, if there was a write since the number was `rest`.
    #[inline]
    pub(crate) fn write_from<R>(&self, rest: u32, change: impl FnOnce() -> R) -> Option<R> {
        let odd = rest | 1;
        (self.0)
            .compare_exchange(rest, odd, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(self.written(odd, change))
    }

    #[inline]
    fn written<R>(&self, odd: u32, change: impl FnOnce() -> R) -> R {
        // Pairs with the reader's fence: who reads one of the new values also reads the
        // odd number, or a later one.
        fence(Ordering::Release);
        let result = change();
        // Pairs with the reader's first load: who reads this even number also reads all
        // of the new values.
        self.0.store(odd.wrapping_add(1), Ordering::Release);
        result
    }

    /// Reads fields as they were at one moment. Waits while a write is under way.
    pub(crate) fn read<R>(&self, read: impl Fn() -> R) -> R {
        let mut tries = 0;
        loop {
            let before = self.0.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let value = read();
                fence(Ordering::Acquire);
                if self.0.load(Ordering::Relaxed) == before {
                    return value;
                }
            }
            tries += 1;
            if tries < SPINS {
                spin_loop();
            } else {
                yield_now();
            }
        }
    }
}

#[cfg(all(test, straggler_loom))]
mod models {
    use super::*;
    use crate::sync::AtomicU64;
    use loom::sync::Arc;
    use loom::thread;

    struct Pair {
        sequence: Sequence,
        one: AtomicU64,
        two: AtomicU64,
    }

    /// A reader beside two writes sees both fields of one of them, or of none.
    #[test]
    fn a_reading_is_never_torn() {
        loom::model(|| {
            let pair = Arc::new(Pair {
                sequence: Sequence::new(),
                one: AtomicU64::new(0),
                two: AtomicU64::new(0),
            });
            let writer = {
                let pair = Arc::clone(&pair);
                thread::spawn(move || {
                    for value in 1..=2 {
                        pair.sequence.write(|| {
                            pair.one.store(value, Ordering::Relaxed);
                            pair.two.store(value, Ordering::Relaxed);
                        });
                    }
                })
            };
            let (one, two) = pair.sequence.read(|| {
                let one = pair.one.load(Ordering::Relaxed);
                (one, pair.two.load(Ordering::Relaxed))
            });
            assert_eq!(one, two);
            writer.join().expect("the writer doesn't panic");
        });
    }
}
