//! What the terminal shows.

use crate::arguments::Options;
use crate::goals;
use crate::results::{Case, Figure, Results};
use crate::shared::spread::Spread;
use crate::variant::Variant;
use crate::workload::Workload;

pub(crate) fn print(options: &Options, results: &Results) {
    println!("\nmedian (least .. most) of the rounds; +bare: median over bare's median");
    println!("wall: × threads; CPU: of the whole process; busy: CPU / (wall × threads)");
    if options.quick {
        println!("--quick: this shows that it runs; the figures mean nothing");
    }
    for &workload in &options.workloads {
        for &threads in &options.threads {
            section(options, results, workload, threads);
        }
    }
}

/// The columns of one workload.
fn figures(workload: Workload) -> &'static [(Figure, &'static str)] {
    match workload {
        Workload::Churn | Workload::Yield | Workload::PingPong | Workload::Spans => {
            &[(Figure::Wall, "wall ns"), (Figure::Cpu, "CPU ns")]
        }
        Workload::Idle200k | Workload::Idle235k | Workload::Idle1m => &[(Figure::Bytes, "bytes")],
        Workload::Axum => &[(Figure::Requests, "requests/s"), (Figure::Cpu, "CPU ns")],
    }
}

fn section(options: &Options, results: &Results, workload: Workload, threads: usize) {
    let figures = figures(workload);
    println!(
        "\n{}, {}, per {}",
        workload.name(),
        goals::on(threads),
        workload.op(),
    );
    print!("{:22}", "");
    for (_, name) in figures {
        print!("  {name:>10} {:>21} {:>9}", "(least .. most)", "+bare");
    }
    println!(
        "{}",
        if workload.parked().is_none() {
            "     busy"
        } else {
            ""
        }
    );
    let variant = Variant::Bare;
    let bare = Case {
        workload,
        threads,
        variant,
    };
    let parked_by_bare = parked(results, bare);
    for &variant in &options.variants {
        let case = Case { variant, ..bare };
        print!("{:22}", variant.name());
        for &(figure, _) in figures {
            if let Some(spread) = results.spread(case, figure) {
                let over = results.over(case, Variant::Bare, figure);
                cell(spread, over.filter(|_| variant != Variant::Bare));
            }
        }
        match results.median(case, Figure::Busy) {
            Some(busy) if workload.parked().is_none() => println!("  {busy:>5.0} %"),
            _ => println!(),
        }
        if let Some(parked) = parked(results, case)
            && Some(parked) != parked_by_bare
        {
            println!("{:22}  with {parked} tasks only", "");
        }
        if let Some(why) = results.failure(case) {
            println!("{:22}  NOT MEASURED: {why}", "");
        }
        if let Some(lost) = results.samples(case).find_map(|each| each.lost.as_ref()) {
            println!("{:22}  lost: {lost}", "");
        }
    }
}

/// How many tasks a case was given to park.
fn parked(results: &Results, case: Case) -> Option<u64> {
    case.workload.parked()?;
    results.samples(case).next().map(|sample| sample.ops)
}

fn cell(spread: Spread, over: Option<f64>) {
    let Spread { median, min, max } = spread;
    let range = format!("({} .. {})", short(min), short(max));
    let over = over.map_or("-".into(), |over| {
        let sign = if over < 0.0 { "-" } else { "+" };
        format!("{sign}{}", short(over.abs()))
    });
    print!("  {:>10} {range:>21} {over:>9}", short(median));
}

/// Three figures or so are all that such a measurement has.
fn short(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        medium if medium < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
