//! When to try again, and when no more: as `opentelemetry-otlp` does for the spans.

use super::Signal;
use super::text::target;
use httpdate::parse_http_date;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// `opentelemetry_otlp::RetryPolicy::recommended()`.
const RETRIES: u32 = 3;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_millis(1_600);
const MOST_JITTER: Duration = Duration::from_millis(100);
/// A receiver may ask for a longer delay than `LONGEST_DELAY`, up to this.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// Whether a failed attempt is worth another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    Yes,
    /// The receiver says when.
    After(Duration),
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) text: String,
    pub(super) again: Again,
}

/// <https://opentelemetry.io/docs/specs/otlp/#failures-1>
pub(super) fn after_http(status: u16, retry_after: Option<&str>, now: SystemTime) -> Again {
    match status {
        429 | 503 => {
            (retry_after.and_then(|text| delay(text, now))).map_or(Again::Yes, Again::After)
        }
        502 | 504 => Again::Yes,
        _ => Again::Never,
    }
}

/// `Retry-After`: seconds or a date. RFC 9110, section 10.2.3.
fn delay(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// <https://opentelemetry.io/docs/specs/otlp/#failures>
pub(super) fn after_grpc(status: &Status) -> Again {
    let asked = status.get_details_retry_info();
    let asked = asked.and_then(|info| info.retry_delay);
    match status.code() {
        // Without a delay the receiver doesn't expect to recover.
        Code::ResourceExhausted => asked.map_or(Again::Never, Again::After),
        Code::Unavailable => asked.map_or(Again::Yes, Again::After),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss => Again::Yes,
        // Not the receiver's word but tonic's, for a connection that broke: opentelemetry-otlp
        // gives up then. What is cumulative may well arrive twice.
        Code::Unknown if status.source().is_some() => Again::Yes,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Internal
        | Code::Unauthenticated => Again::Never,
    }
}

/// Why something was not delivered.
#[derive(Debug)]
pub(super) struct Undelivered {
    pub(super) text: String,
    /// There was no answer: what the connection leads to may be gone without a word.
    pub(super) is_silent: bool,
}

impl Undelivered {
    /// With what it was, and where to.
    pub(super) fn of(self, what: &str, signal: &Signal) -> Self {
        let text = format!("{}: {}", target(what, signal), self.text);
        Self { text, ..self }
    }
}

impl From<String> for Undelivered {
    fn from(text: String) -> Self {
        let is_silent = false;
        Self { text, is_silent }
    }
}

/// Attempts until one succeeds or none is worth it, all of it within `time`. Gives what the
/// last one failed of.
pub(super) async fn within<T>(
    time: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, Undelivered> {
    let deadline = Instant::now() + time;
    let mut backoff = Backoff::default();
    let mut last: Option<String> = None;
    loop {
        let failure = match timeout_at(deadline, attempt()).await {
            Ok(Ok(taken)) => return Ok(taken),
            Ok(Err(failure)) => failure,
            Err(_) => return Err(timed_out(time, last)),
        };
        let remaining = deadline.saturating_duration_since(Instant::now());
        match backoff.next(failure.again, remaining, jitter()) {
            Some(delay) => sleep(delay).await,
            None => return Err(failure.text.into()),
        }
        last = Some(failure.text);
    }
}

pub(super) fn timed_out(time: Duration, last: Option<String>) -> Undelivered {
    let text = match last {
        Some(last) => format!("no answer within {time:?}; the attempt before: {last}"),
        None => format!("no answer within {time:?}"),
    };
    let is_silent = true;
    Undelivered { text, is_silent }
}

/// How long to wait before the next attempt: twice as long each time.
#[derive(Debug)]
struct Backoff {
    left: u32,
    delay: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            left: RETRIES,
            delay: FIRST_DELAY,
            longest: LONGEST_DELAY,
        }
    }
}

impl Backoff {
    /// None where it is not worth it, or would be too late.
    fn next(&mut self, again: Again, remaining: Duration, jitter: Duration) -> Option<Duration> {
        match again {
            Again::Never => return None,
            Again::Yes => {}
            Again::After(asked) => {
                let asked = asked.min(LONGEST_ASKED);
                if asked > self.longest {
                    self.longest = LONGEST_ASKED;
                }
                self.delay = self.delay.max(asked);
            }
        }
        self.left = self.left.checked_sub(1)?;
        let wait = self.delay.saturating_add(jitter).min(self.longest);
        self.delay = self.delay.saturating_mul(2).min(self.longest);
        (wait < remaining).then_some(wait)
    }
}

/// So that those who were turned away together don't come back together.
fn jitter() -> Duration {
    let most = MOST_JITTER.subsec_nanos();
    // Every RandomState has keys of its own.
    let random = RandomState::new().hash_one(()) % u64::from(most);
    Duration::from_nanos(random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn delays_double_up_to_the_longest_and_end() {
        let mut backoff = Backoff::default();
        let mut next = || backoff.next(Again::Yes, LONG, Duration::ZERO);
        assert_eq!(next(), Some(Duration::from_millis(100)));
        assert_eq!(next(), Some(Duration::from_millis(200)));
        assert_eq!(next(), Some(Duration::from_millis(400)));
        assert_eq!(next(), None, "three retries");
    }

    #[test]
    fn an_asked_delay_is_the_least_and_grows() {
        let mut backoff = Backoff::default();
        let asked = Again::After(Duration::from_secs(4));
        assert_eq!(
            backoff.next(asked, LONG, Duration::ZERO),
            Some(Duration::from_secs(4))
        );
        let second = backoff.next(Again::Yes, LONG, Duration::ZERO);
        assert_eq!(second, Some(Duration::from_secs(8)));
        let hours = Again::After(Duration::from_secs(7_200));
        assert_eq!(
            backoff.next(hours, LONG, Duration::from_millis(7)),
            Some(LONGEST_ASKED)
        );
    }

    #[test]
    fn nothing_is_waited_for_past_the_deadline() {
        let short = Duration::from_millis(50);
        assert_eq!(
            Backoff::default().next(Again::Yes, short, Duration::ZERO),
            None
        );
        assert_eq!(
            Backoff::default().next(Again::Never, LONG, Duration::ZERO),
            None
        );
    }

    #[test]
    fn http_statuses() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let again = |status, header| after_http(status, header, now);
        for status in [429, 502, 503, 504] {
            assert_eq!(again(status, None), Again::Yes, "{status}");
        }
        for status in [301, 307, 400, 401, 403, 404, 408, 413, 500, 501] {
            assert_eq!(again(status, Some("3")), Again::Never, "{status}");
        }
        let three = Again::After(Duration::from_secs(3));
        assert_eq!(again(429, Some("3")), three);
        assert_eq!(again(503, Some("Sun, 06 Nov 1994 08:49:40 GMT")), three);
        let past = again(503, Some("Sun, 06 Nov 1994 08:49:30 GMT"));
        assert_eq!(past, Again::After(Duration::ZERO));
        assert_eq!(again(429, Some("soon")), Again::Yes);
        assert_eq!(again(502, Some("3")), Again::Yes, "has no Retry-After");
    }

    #[test]
    fn grpc_statuses() {
        let plain = |code| after_grpc(&Status::new(code, ""));
        let asked = |code, delay| {
            let details = ErrorDetails::with_retry_info(Some(delay));
            after_grpc(&Status::with_error_details(code, "", details))
        };
        let three = Duration::from_secs(3);
        assert_eq!(plain(Code::Unavailable), Again::Yes);
        assert_eq!(plain(Code::ResourceExhausted), Again::Never);
        assert_eq!(plain(Code::Unauthenticated), Again::Never);
        assert_eq!(plain(Code::Unknown), Again::Never);
        assert_eq!(plain(Code::DataLoss), Again::Yes);
        assert_eq!(asked(Code::ResourceExhausted, three), Again::After(three));
        assert_eq!(asked(Code::Unavailable, three), Again::After(three));
        assert_eq!(asked(Code::Internal, three), Again::Never);
    }
}
