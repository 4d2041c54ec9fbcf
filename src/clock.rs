//! Time: nanoseconds since the table was made, from the processor's counter or
//! from a test's own hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A clock that a test moves by hand.
///
/// Given to [`Builder::clock`](crate::Builder::clock) it replaces the real one:
/// ages, poll times, the grace and lifetimes pass only when
/// [`advance`](ManualClock::advance) says so. Clones share the same time.
///
/// ```
/// use std::time::Duration;
///
/// let clock = straggler::ManualClock::new();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.elapsed(), Duration::from_secs(60));
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that stands at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time on. Saturates after 584 years.
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        // Pairs with nothing: a reader may see the old or the new time.
        self.nanos
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                Some(now.saturating_add(by))
            })
            .unwrap_or_default();
    }

    /// How far the clock was moved since it was made.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// A moment, in nanoseconds since the table was made, plus one: zero means never.
pub(crate) type Nanos = u64;

#[derive(Debug)]
pub(crate) struct Clock {
    source: Source,
    anchor: SystemTime,
}

#[derive(Debug)]
enum Source {
    Real { clock: quanta::Clock, origin: u64 },
    Manual(ManualClock),
}

impl Clock {
    pub(crate) fn new(manual: Option<ManualClock>) -> Self {
        let source = match manual {
            Some(manual) => Source::Manual(manual),
            None => {
                let clock = quanta::Clock::new();
                let origin = clock.raw();
                Source::Real { clock, origin }
            }
        };
        Self {
            source,
            anchor: SystemTime::now(),
        }
    }

    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        let elapsed = match &self.source {
            Source::Real { clock, origin } => clock.delta_as_nanos(*origin, clock.raw()),
            Source::Manual(manual) => manual.nanos.load(Ordering::Relaxed),
        };
        elapsed.saturating_add(1)
    }

    /// What the time of day is now, to tell that of other moments by.
    pub(crate) fn wall(&self) -> Wall {
        let system = match &self.source {
            // The counter's rate is measured once, and is some hundred millionths off: seconds
            // a day. So moments are told from now, not from the start.
            Source::Real { .. } => SystemTime::now(),
            Source::Manual(manual) => {
                let since = manual.elapsed();
                self.anchor.checked_add(since).unwrap_or(self.anchor)
            }
        };
        Wall {
            now: self.now(),
            system,
        }
    }

    /// When the table was made.
    #[cfg(feature = "otlp")]
    pub(crate) fn started(&self) -> SystemTime {
        self.anchor
    }
}

/// One moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wall {
    now: Nanos,
    system: SystemTime,
}

impl Wall {
    #[cfg(feature = "otlp")]
    pub(crate) fn system(&self) -> SystemTime {
        self.system
    }

    /// The time of day of a moment near this one.
    pub(crate) fn time(&self, at: Nanos) -> SystemTime {
        let moved = match self.now.checked_sub(at) {
            Some(before) => self.system.checked_sub(Duration::from_nanos(before)),
            None => (self.system).checked_add(Duration::from_nanos(at - self.now)),
        };
        moved.unwrap_or(self.system)
    }
}

/// A duration in nanoseconds, saturating.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_from_now() {
        let manual = ManualClock::new();
        let clock = Clock::new(Some(manual.clone()));
        let began = clock.now();
        manual.advance(Duration::from_secs(60));
        let wall = clock.wall();
        assert_eq!(
            wall.time(clock.now()),
            wall.time(began) + Duration::from_secs(60)
        );
        let real = Clock::new(None);
        let (before, told) = (SystemTime::now(), real.wall().time(real.now()));
        let apart = told.duration_since(before).unwrap_or_default();
        assert!(apart < Duration::from_secs(5), "{apart:?}");
    }
}
