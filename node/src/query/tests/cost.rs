//! Estimates of what a query would cost, from all who keep its series.

use super::*;
use crate::http::tests::NOW_MS;

#[tokio::test]
async fn each_series_is_counted_once_whoever_is_asked() {
    for (stores, rf) in [(3, 3), (5, 3), (4, 1)] {
        let cluster = Cluster::of(stores, rf).await;
        for i in 0..40 {
            for step in 0..8 {
                cluster.write(&format!("m{i}"), 0.5, NOW_MS - 120_000 + step * 15_000, &[]);
            }
        }
        for member in &cluster.members {
            let answer = member.node.get("/api/v1/query_cost?query=sum(%7Bjob%3D%22a%22%7D)%2Bm1").await;
            let data = answer.data();
            let all = &data["selects"][0];
            for (cost, series) in [(all, 40), (&data["selects"][1], 1), (&data, 41)] {
                assert_eq!((&cost["series"], &cost["chunks"]), (&series.into(), &series.into()), "{cost}");
                assert_eq!(cost["samples"], 8 * series, "{cost}");
            }
        }
    }
}
