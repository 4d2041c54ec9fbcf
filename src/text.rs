//! Numbers and durations for people.

use crate::task::{Kind, Location, SiteKey};
use std::fmt;
use std::time::Duration;

/// `127843` as `127,843`.
pub(crate) struct Count(pub(crate) u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// Two units at most: `47m`, `1h5m`, `3.2s`, `12ms`, `800µs`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            0 if self.0.is_zero() => "0s".to_owned(),
            0 if self.0.as_millis() == 0 => format!("{}µs", self.0.as_micros()),
            0 => format!("{}ms", self.0.as_millis()),
            1..10 => format!("{:.1}s", self.0.as_secs_f64()),
            10..60 => format!("{seconds}s"),
            60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
            3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "m"),
            _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
        };
        // `5.0s` says no more than `5s`.
        f.pad(&text.replace(".0s", "s"))
    }
}

/// `"name" file:line (kind)`, the kind where it is not a plain task.
pub(crate) struct Named<'a>(
    pub(crate) &'a Location,
    pub(crate) Option<&'a str>,
    pub(crate) Kind,
);

impl<'a> Named<'a> {
    pub(crate) fn of(key: &'a SiteKey) -> Self {
        Self(&key.location, key.name.as_deref(), key.kind)
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.1 {
            write!(f, "\"{name}\" ")?;
        }
        write!(f, "{}", self.0)?;
        match self.2 {
            Kind::Task => Ok(()),
            kind => write!(f, " ({kind})"),
        }
    }
}

fn two(first: u64, unit: &str, second: u64, second_unit: &str) -> String {
    match second {
        0 => format!("{first}{unit}"),
        _ => format!("{first}{unit}{second}{second_unit}"),
    }
}

#[cfg(all(test, not(straggler_loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (127_843, "127,843"),
        ] {
            assert_eq!(Count(n).to_string(), text);
        }
        assert_eq!(format!("{:>9}", Count(127_843)), "  127,843");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (millis, text) in [
            (0, "0s"),
            (12, "12ms"),
            (3_200, "3.2s"),
            (5_000, "5s"),
            (47 * 60_000, "47m"),
            (65 * 60_000, "1h5m"),
            (26 * 3_600_000, "1d2h"),
        ] {
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
    }
}
