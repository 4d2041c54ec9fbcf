//! What the terminal shows.

use crate::arguments::Watched;
use crate::child::{Cost, Level};
use crate::coordinator::Answered;
use crate::shared::spread::Spread;
use crate::snapshots::{Beside, Snapshots};
use crate::stalls::Stalls;

pub(crate) fn print(levels: &[u64], source: Watched, answers: &[Answered]) {
    costs("poll", levels, source, answers, |level| &level.polls);
    costs(
        "spawned and joined task",
        levels,
        source,
        answers,
        |level| &level.tasks,
    );
    let looked = answers
        .iter()
        .filter_map(|each| each.answer.snapshots.as_ref());
    let looked: Vec<_> = looked.collect();
    let Some(last) = looked.last() else { return };
    println!(
        "\nA snapshot of {} live tasks, {} of them orphans; median (least .. most)\n",
        last.live, last.orphans
    );
    let firsts = looked.iter().map(|each| each.taken_nanos[0] as f64);
    row("the process's first", firsts);
    let later = |nanos: fn(&Snapshots) -> &[u64]| {
        let later = looked.iter().flat_map(move |each| &nanos(each)[1..]);
        later.map(|&nanos| nanos as f64).collect::<Vec<_>>()
    };
    row("a later one", later(|each| &each.taken_nanos));
    row("dropping it", later(|each| &each.dropped_nanos));
    for (at, query) in last.queries.iter().enumerate() {
        let nanos = looked.iter().map(|each| each.queries[at].nanos);
        row(&query.name, nanos);
    }
    stalls("spawn and join", looked.iter().map(|each| &each.spawner));
    stalls("poll", looked.iter().map(|each| &each.poller));
    println!();
    for each in looked {
        println!("lost: {}", each.lost.as_deref().unwrap_or("nothing"));
    }
}

/// Processor time for each operation beside so many live tasks, and by the wall clock.
fn costs(op: &str, levels: &[u64], source: Watched, answers: &[Answered], of: fn(&Level) -> &Cost) {
    println!(
        "\nns per {op} on 2 threads: median (least .. most) of the processor time; wall × 2\n"
    );
    let spread = |variant, live, nanos: fn(&Cost) -> f64| {
        let of_variant = answers.iter().filter(move |each| each.variant == variant);
        let levels = of_variant.flat_map(|each| &each.answer.levels);
        let costs = levels.filter(move |level| level.live == live).map(of);
        Spread::of(costs.map(nanos))
    };
    let cpu = |cost: &Cost| cost.cpu_nanos as f64 / cost.ops as f64;
    let wall = |cost: &Cost| 2.0 * cost.wall_nanos as f64 / cost.ops as f64;
    println!(
        "{:>10}  {:>30} {:>7}  {:>30} {:>7}  {:>7}",
        "live",
        "bare",
        "wall",
        source.name(),
        "wall",
        "+bare"
    );
    for &live in levels {
        let cell = |variant| {
            let (cpu, wall) = (spread(variant, live, cpu)?, spread(variant, live, wall)?);
            let Spread { median, min, max } = cpu;
            let shown = format!("{median:.0} ({min:.0} .. {max:.0})");
            Some((median, format!("{shown:>30} {:>7.0}", wall.median)))
        };
        let (Some((bare, bares)), Some((ours, our))) = (cell(Watched::Bare), cell(source)) else {
            println!("{live:>10}  not measured");
            continue;
        };
        println!("{live:>10}  {bares}  {our}  {:>+7.0}", ours - bare);
    }
}

fn row(name: &str, nanos: impl IntoIterator<Item = f64>) {
    let Some(Spread { median, min, max }) = Spread::of(nanos) else {
        return;
    };
    println!(
        "{name:22} {:>10} ({} .. {})",
        time(median),
        time(min),
        time(max)
    );
}

fn stalls<'a>(what: &str, beside: impl Iterator<Item = &'a Beside> + Clone) {
    println!("\nA loop's turns ({what}), in each process\n");
    println!(
        "{:24} {:>10} {:>10} {:>10} {:>12}",
        "", "median", "p99.9", "longest", "turns"
    );
    for each in beside {
        turns("no snapshot", &each.quiet);
        turns("one snapshot on another", &each.snapshots);
    }
}

fn turns(name: &str, stalls: &Stalls) {
    let shown = [stalls.median, stalls.p999, stalls.longest].map(|nanos| time(nanos as f64));
    let [median, p999, longest] = shown;
    println!(
        "{name:24} {median:>10} {p999:>10} {longest:>10} {:>12}",
        stalls.turns
    );
}

fn time(nanos: f64) -> String {
    match nanos {
        small if small < 1e3 => format!("{small:.0} ns"),
        micros if micros < 1e6 => format!("{:.1} µs", micros / 1e3),
        millis => format!("{:.1} ms", millis / 1e6),
    }
}
