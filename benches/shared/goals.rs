//! What straggler is meant to cost at most, set against what was measured.

use super::spread::Spread;
use serde::Serialize;

/// One goal. It fails no run: a bench is no test.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    what: String,
    limit: Limit,
    unit: &'static str,
    /// By each figure that says something of it. Empty where what it needs wasn't measured.
    values: Vec<Value>,
}

/// Median and extremes of the rounds that could be judged.
#[derive(Debug, Serialize)]
struct Value {
    by: &'static str,
    value: Option<f64>,
    least: Option<f64>,
    most: Option<f64>,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limit {
    AtMost(f64),
    #[allow(dead_code, reason = "no goal of `scale` is of this kind")]
    AtLeast(f64),
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Met,
    NotMet,
    /// The rounds disagree, or some can't be judged.
    Undecided,
    /// No round can be.
    NotJudged,
}

impl Limit {
    fn is_kept_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl Verdict {
    fn shown(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "NOT MET",
            Self::Undecided => "undecided",
            Self::NotJudged => "not judged",
        }
    }
}

impl Goal {
    pub(crate) fn new(what: String, limit: Limit, unit: &'static str) -> Self {
        Self {
            what,
            limit,
            unit,
            values: Vec::new(),
        }
    }

    /// By the value of each round that was measured; `None` is one that can't be judged.
    pub(crate) fn by(
        mut self,
        by: &'static str,
        rounds: impl IntoIterator<Item = Option<f64>>,
    ) -> Self {
        let rounds: Vec<_> = rounds.into_iter().collect();
        if !rounds.is_empty() {
            let spread = Spread::of(rounds.iter().copied().flatten());
            self.values.push(Value {
                by,
                value: spread.map(|spread| spread.median),
                least: spread.map(|spread| spread.min),
                most: spread.map(|spread| spread.max),
                verdict: self.verdict(spread, rounds.contains(&None)),
            });
        }
        self
    }

    fn verdict(&self, spread: Option<Spread>, some_unjudged: bool) -> Verdict {
        let Some(Spread { median, min, max }) = spread else {
            return Verdict::NotJudged;
        };
        if some_unjudged || self.limit.is_kept_by(min) != self.limit.is_kept_by(max) {
            return Verdict::Undecided;
        }
        match self.limit.is_kept_by(median) {
            true => Verdict::Met,
            false => Verdict::NotMet,
        }
    }

    pub(crate) fn is_measured(&self) -> bool {
        !self.values.is_empty()
    }
}

pub(crate) fn print(goals: &[Goal]) {
    println!("\nGoals: median (least .. most) of the rounds\n");
    for goal in goals {
        let limit = match goal.limit {
            Limit::AtMost(limit) => format!("<= {limit:.2}"),
            Limit::AtLeast(limit) => format!(">= {limit:.2}"),
        };
        println!("{:64} {limit:>9} {}", goal.what, goal.unit);
        for value in &goal.values {
            let shown = match (value.value, value.least, value.most) {
                (Some(median), Some(min), Some(max)) => {
                    format!("{median:.2} ({min:.2} .. {max:.2})")
                }
                _ => "-".to_owned(),
            };
            println!("  {:>10}: {shown:30} {}", value.by, value.verdict.shown());
        }
    }
}
