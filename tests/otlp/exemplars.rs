//! From a number to the trace that it came from.

use super::agreement::Pair;
use super::common::{Gate, MS};
use super::exporting::{audit, context, orphan, within};
use super::receiver::PROTOCOLS;
use super::view::Number;
use straggler::Source;

/// The exemplars of a metric in the last request.
fn exemplars(pair: &Pair, metric: &str) -> Vec<super::view::Exemplar> {
    (pair.points(metric).into_iter())
        .flat_map(|point| point.exemplars)
        .collect()
}

#[test]
fn a_lifetime_leads_to_the_trace_it_belongs_to() {
    for protocol in PROTOCOLS {
        let pair = Pair::new(protocol, Source::Spans);
        pair.world.block_on(async {
            let lifetimes = [3 * MS, 30 * MS, 300 * MS, 3_000 * MS];
            for (number, lifetime) in (1..).zip(lifetimes) {
                let (sampled, unsampled) = (context(number, true), context(number + 10, false));
                let spawn = || tokio::spawn(async {});
                let tasks = [
                    within(Some(&sampled), spawn),
                    within(Some(&unsampled), spawn),
                    within(None, spawn),
                ];
                pair.world.clock.advance(lifetime);
                for task in tasks {
                    task.await.unwrap();
                }
            }
            let ended = pair.world.snapshot().taken_at();
            pair.check();
            let points = pair.points("tokio.task.lifetime");
            let traced: Vec<_> = points
                .iter()
                .filter(|it| !it.exemplars.is_empty())
                .collect();
            assert_eq!(traced.len(), 1, "one site has them: {points:#?}");
            let (point, histogram) = (traced[0], traced[0].histogram());
            assert_eq!(histogram.count, 12);
            let mut found: Vec<_> = (point.exemplars.iter())
                .map(|exemplar| (exemplar.value.as_f64(), exemplar.span.unwrap()))
                .collect();
            found.sort_by(|a, b| a.0.total_cmp(&b.0));
            for (number, lifetime) in (1..).zip(lifetimes) {
                let sampled = context(number, true);
                let (value, span) = found[number as usize - 1];
                assert_eq!(value, lifetime.as_secs_f64());
                assert_eq!(span, (sampled.trace_id(), sampled.span_id()));
                let bucket = histogram.bounds.partition_point(|bound| *bound < value);
                assert_eq!(histogram.counts[bucket], 3, "it lies in its bucket");
            }
            assert_eq!(found.len(), lifetimes.len(), "{found:#?}");
            assert!(point.exemplars.iter().all(|it| it.time <= ended));

            pair.check();
            assert!(
                exemplars(&pair, "tokio.task.lifetime").is_empty(),
                "given once"
            );
        });
        audit(&pair.receiver.received());
    }
}

#[test]
fn the_count_of_orphans_leads_to_the_marker_of_one() {
    for protocol in PROTOCOLS {
        let pair = Pair::new(protocol, Source::Spans);
        pair.world.block_on(async {
            let gate = Gate::default();
            orphan("leaked", &gate, Some(context(1, true))).await;
            pair.world.clock.advance(MS);
            pair.check();
            let found = exemplars(&pair, "tokio.task.orphaned");
            let marker = pair.receiver.received().span("orphan leaked");
            assert_eq!(found.len(), 1, "{found:#?}");
            assert_eq!(found[0].span, Some((marker.trace_id, marker.span_id)));
            assert_eq!(
                (found[0].value, found[0].time),
                (Number::Int(1), marker.start)
            );
            pair.check();
            assert!(
                exemplars(&pair, "tokio.task.orphaned").is_empty(),
                "given once"
            );
            assert_eq!(pair.total("tokio.task.orphaned"), 1.0);

            // Spans of unsampled parents are not sent, so nothing could be found there.
            orphan("unsampled", &gate, Some(context(2, false))).await;
            pair.check();
            assert!(exemplars(&pair, "tokio.task.orphaned").is_empty());
            assert_eq!(pair.total("tokio.task.orphaned"), 2.0);
        });
        audit(&pair.receiver.received());
    }
}
