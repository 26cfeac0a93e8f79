//! What finding series by their labels costs, over 100,000 of them.

#![allow(clippy::unwrap_used, reason = "a tool that ends on a bug of its own")]

use criterion::{Criterion, criterion_group, criterion_main};
use tsdb::index::memory::MemoryPostings;
use tsdb::index::postings::find;
use tsdb::model::{Labels, MatchOp, Matcher};

const SERIES: u32 = 100_000;

fn postings() -> MemoryPostings {
    let mut postings = MemoryPostings::default();
    for i in 0..SERIES {
        let texts =
            [format!("metric_{}", i % 25), format!("host-{:04}:9100", i / 100), format!("job-{}", i % 7)];
        let pairs = [("__name__", &*texts[0]), ("instance", &*texts[1]), ("job", &*texts[2])];
        postings.add(i, &Labels::from_pairs(pairs).unwrap());
    }
    postings
}

fn lookups(c: &mut Criterion) {
    let postings = postings();
    let regex = |name, pattern| Matcher::new(MatchOp::Regex, name, pattern).unwrap();
    let questions = [
        ("one metric", vec![Matcher::equal("__name__", "metric_3")]),
        ("metric and job", vec![Matcher::equal("__name__", "metric_3"), Matcher::equal("job", "job-2")]),
        ("metrics by prefix", vec![regex("__name__", "metric_.+")]),
        ("a few instances", vec![Matcher::equal("job", "job-2"), regex("instance", "host-000[1-5]:9100")]),
        ("instances by pattern", vec![regex("instance", ".*[05]0:.*")]),
        (
            "all but a job",
            vec![
                Matcher::equal("__name__", "metric_3"),
                Matcher::new(MatchOp::NotEqual, "job", "job-2").unwrap(),
            ],
        ),
    ];
    let mut group = c.benchmark_group("find");
    for (what, matchers) in questions {
        group.bench_function(what, |b| b.iter(|| find(&postings, &matchers).unwrap().len()));
    }
}

criterion_group!(benches, lookups);
criterion_main!(benches);
