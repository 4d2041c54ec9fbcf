//! What many runs gave, by kernel and by category.

use crate::harness::{Outcome, Part, Program};
use crate::program::{Clean, Kernel};
use std::collections::BTreeMap;
use std::fmt;

/// Counts of runs of one program.
#[derive(Clone, Copy, Debug, Default)]
struct Runs {
    all: usize,
    /// With every task reported that stays.
    reported: usize,
    /// As they must be in every point.
    right: usize,
    false_reports: usize,
    inconclusive: usize,
    broken: usize,
}

impl Runs {
    fn add(&mut self, program: Program, outcome: &Outcome) {
        self.all += 1;
        self.reported += usize::from(outcome.is_reported());
        self.right += usize::from(outcome.is_right(program));
        self.false_reports += match program.part {
            Part::Fixed | Part::DropsPeer => outcome.false_reports().min(1),
            Part::Leaks { .. } | Part::Clean(_) => outcome.false_reports(),
        };
        self.inconclusive += usize::from(outcome.inconclusive.is_some());
        self.broken += usize::from(outcome.broken.is_some());
    }

    fn all_are_reported(self) -> bool {
        self.reported == self.all
    }

    /// How many of them were clean.
    fn clean(self) -> String {
        match self.all {
            0 => "-".into(),
            all => format!("{}/{all}", self.right),
        }
    }
}

struct Row {
    codes: &'static str,
    flaky: bool,
    leaks: Runs,
    fixed: Runs,
    drops_peer: Runs,
}

impl Row {
    fn parts(&self) -> [Runs; 3] {
        [self.leaks, self.fixed, self.drops_peer]
    }

    fn sum(&self, of: impl Fn(&Runs) -> usize) -> usize {
        self.parts().iter().map(of).sum()
    }

    fn twins(&self) -> usize {
        let ran = |runs: Runs| usize::from(runs.all > 0);
        ran(self.fixed) + ran(self.drops_peer)
    }
}

/// A row for each kernel and clean program, in their own order.
pub struct Table {
    kernels: Vec<(&'static str, Row)>,
    clean: Vec<(&'static str, Runs)>,
}

impl Table {
    pub fn new(kernels: &[Kernel], clean: &[Clean]) -> Self {
        let row = |kernel: &Kernel| Row {
            codes: kernel.codes,
            flaky: kernel.flaky,
            leaks: Runs::default(),
            fixed: Runs::default(),
            drops_peer: Runs::default(),
        };
        Self {
            kernels: kernels.iter().map(|it| (it.id, row(it))).collect(),
            clean: clean.iter().map(|it| (it.id, Runs::default())).collect(),
        }
    }

    /// Counts a run. True for the first of its program that is not as it must be.
    pub fn add(&mut self, program: Program, outcome: &Outcome) -> bool {
        self.runs_of(program).is_some_and(|runs| {
            let all_were_right = runs.right == runs.all;
            runs.add(program, outcome);
            all_were_right && runs.right < runs.all
        })
    }

    fn runs_of(&mut self, program: Program) -> Option<&mut Runs> {
        if let Part::Clean(_) = program.part {
            let mut rows = self.clean.iter_mut();
            return rows.find(|(id, _)| *id == program.id).map(|(_, runs)| runs);
        }
        let mut rows = self.kernels.iter_mut();
        let (_, row) = rows.find(|(id, _)| *id == program.id)?;
        Some(match program.part {
            Part::Fixed => &mut row.fixed,
            Part::DropsPeer => &mut row.drops_peer,
            Part::Leaks { .. } | Part::Clean(_) => &mut row.leaks,
        })
    }

    fn steady(&self) -> impl Iterator<Item = &Row> {
        let rows = self.kernels.iter().map(|(_, row)| row);
        rows.filter(|row| !row.flaky)
    }

    fn false_reports(&self) -> usize {
        let kernels = self.kernels.iter();
        let of_kernels: usize = kernels
            .map(|(_, row)| row.sum(|runs| runs.false_reports))
            .sum();
        let of_clean: usize = self.clean.iter().map(|(_, runs)| runs.false_reports).sum();
        of_kernels + of_clean
    }

    /// Every leak that doesn't go by chance was reported in every run, nothing else was, and
    /// every run could be judged.
    pub fn is_right(&self) -> bool {
        let kernels = self.kernels.iter();
        let broken: usize = kernels.map(|(_, row)| row.sum(|runs| runs.broken)).sum();
        let twins = |row: &Row| [row.fixed, row.drops_peer];
        let is_clean = |runs: Runs| runs.right == runs.all;
        self.steady().all(|row| row.leaks.all_are_reported())
            // A run that proves nothing fails a test as well.
            && self.kernels.iter().flat_map(|(_, row)| twins(row)).all(is_clean)
            && self.clean.iter().all(|(_, runs)| is_clean(*runs))
            && broken + self.false_reports() == 0
    }

    fn kernel_rows(&self, f: &mut fmt::Formatter<'_>, flaky: bool) -> fmt::Result {
        writeln!(
            f,
            "{:<32} {:<5} {:>6} {:>9} {:>6} {:>13} {:>12} {:>12}",
            "kernel",
            "codes",
            "runs",
            "reported",
            "false",
            "inconclusive",
            "fixed clean",
            "drop clean"
        )?;
        for (id, row) in self.kernels.iter().filter(|(_, row)| row.flaky == flaky) {
            writeln!(
                f,
                "{id:<32} {:<5} {:>6} {:>9} {:>6} {:>13} {:>12} {:>12}",
                row.codes,
                row.leaks.all,
                row.leaks.reported,
                row.sum(|runs| runs.false_reports),
                row.sum(|runs| runs.inconclusive),
                row.fixed.clean(),
                row.drops_peer.clean(),
            )?;
        }
        writeln!(f)
    }

    /// A kernel with two codes counts in both.
    fn recall(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut categories: BTreeMap<&str, (usize, usize, Runs)> = BTreeMap::new();
        for row in self.steady() {
            for code in row.codes.split(['+', '/']) {
                let (kernels, reported, runs) = categories.entry(code).or_default();
                *kernels += 1;
                *reported += usize::from(row.leaks.all_are_reported());
                runs.all += row.leaks.all;
                runs.reported += row.leaks.reported;
            }
        }
        writeln!(f, "recall   kernels  reported  runs with all reported")?;
        for (code, (kernels, reported, runs)) in categories {
            writeln!(
                f,
                "{code:<8} {kernels:>7} {reported:>9}  {}/{}",
                runs.reported, runs.all
            )?;
        }
        writeln!(f)
    }

    fn clean_rows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<38} {:>6} {:>9} {:>6} {:>6} {:>13}",
            "without a leak", "runs", "reported", "right", "false", "inconclusive"
        )?;
        for (id, runs) in &self.clean {
            writeln!(
                f,
                "{id:<38} {:>6} {:>9} {:>6} {:>6} {:>13}",
                runs.all, runs.reported, runs.right, runs.false_reports, runs.inconclusive
            )?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steady().next().is_some() {
            self.kernel_rows(f, false)?;
            self.recall(f)?;
        }
        if self.kernels.iter().any(|(_, row)| row.flaky) {
            writeln!(
                f,
                "These leak by chance, and are not counted as kernels below:"
            )?;
            self.kernel_rows(f, true)?;
        }
        if !self.clean.is_empty() {
            self.clean_rows(f)?;
        }
        let reported = self.steady().filter(|row| row.leaks.all_are_reported());
        let twins: usize = self.kernels.iter().map(|(_, row)| row.twins()).sum();
        write!(
            f,
            "corpus: kernels={} reported={} twins={twins} false={}",
            self.steady().count(),
            reported.count(),
            self.false_reports()
        )
    }
}
