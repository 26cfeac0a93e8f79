//! Many large queries of one tenant, and a small one of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{Request, StatusCode};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tsdb::disk::MemoryDisk;

use super::{Answer, NOW_MS, TestNode, series};
use crate::env::{Job, Pool, Work};

/// A pool whose threads for large queries are busy until they are released.
#[derive(Default)]
struct BusyPool {
    /// What waits for them; `None` once they are released.
    held: Mutex<Option<Vec<Job>>>,
    small: AtomicUsize,
}

impl BusyPool {
    fn release(&self) {
        let held = self.held.lock().take();
        held.into_iter().flatten().for_each(|job| job());
    }
}

impl Pool for BusyPool {
    fn run(&self, work: Work, job: Job) {
        self.small.fetch_add(usize::from(work == Work::SmallQuery), Ordering::Relaxed);
        if work == Work::LargeQuery
            && let Some(held) = &mut *self.held.lock()
        {
            return held.push(job);
        }
        job();
    }

    fn parallelism(&self) -> usize {
        1
    }
}

async fn ask(node: &TestNode, tenant: &str, path: &str) -> Answer {
    let request = Request::get(path).header("x-scope-orgid", tenant);
    node.send(request.body(axum::body::Body::empty()).unwrap()).await
}

/// A node with four series of each of two tenants, and its pool, whose threads for large queries are busy.
async fn busy() -> (TestNode, Arc<BusyPool>) {
    let pool = Arc::new(BusyPool { held: Mutex::new(Some(Vec::new())), ..BusyPool::default() });
    let own = pool.clone();
    let change = async move |app: &mut crate::node::App| app.env.pool = own.clone();
    let node = TestNode::changed(MemoryDisk::new(), Arc::default(), "", change).await;
    for tenant in ["hog", "other"] {
        let all: Vec<_> =
            (0..4).map(|i| series(&[("__name__", "up"), ("i", &i.to_string())], &[(NOW_MS, 1.0)])).collect();
        let answer = node.write_as(tenant, all).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    }
    (node, pool)
}

#[tokio::test(start_paused = true)]
async fn forty_large_queries_of_a_tenant_dont_hold_up_anothers_small_one() {
    let (node, pool) = busy().await;
    let large = "/api/v1/query?query=sum(sum_over_time(up[60d]))";
    let mut hogs: Vec<_> = (0..40).map(|_| ask(&node, "hog", large).boxed()).collect();
    assert!(hogs.iter_mut().all(|hog| hog.now_or_never().is_none()));
    for path in [
        "/api/v1/query?query=up",
        "/api/v1/query_range?query=sum(rate(up[5m]))&start=1767222000&end=1767225600&step=15",
        "/api/v1/series?match[]=up",
        "/api/v1/labels",
        "/api/v1/label/i/values",
    ] {
        let answer = ask(&node, "other", path).now_or_never().expect("it waits for nobody");
        answer.data();
    }
    // Small ones of that tenant wait, since it holds what a tenant may.
    let mut own = ask(&node, "hog", "/api/v1/query?query=up").boxed();
    assert!((&mut own).now_or_never().is_none());
    pool.release();
    for answer in join_all(hogs).await {
        assert_eq!(answer.data()["result"][0]["value"][1], "4");
    }
    own.await.data();
}

#[tokio::test(start_paused = true)]
async fn another_tenants_large_query_goes_before_those_that_waited_longer() {
    let (node, pool) = busy().await;
    let large = "/api/v1/query?query=sum(sum_over_time(up[60d]))";
    let mut hogs: Vec<_> = (0..10).map(|_| ask(&node, "hog", large).boxed()).collect();
    assert!(hogs.iter_mut().all(|hog| hog.now_or_never().is_none()));
    let mut other = ask(&node, "other", large).boxed();
    assert!((&mut other).now_or_never().is_none());
    // The one on the core ends, and the next one comes.
    let first = pool.held.lock().as_mut().unwrap().remove(0);
    first();
    for hog in &mut hogs {
        if (&mut *hog).now_or_never().is_some() {
            break;
        }
    }
    assert!((&mut other).now_or_never().is_none(), "it is on the core");
    let next = pool.held.lock().as_mut().unwrap().remove(0);
    next();
    other.now_or_never().expect("it was the next").data();
}

#[tokio::test]
async fn small_queries_take_one_job() {
    let (node, pool) = busy().await;
    let before = pool.small.load(Ordering::Relaxed);
    ask(&node, "other", "/api/v1/query?query=up").await.data();
    assert_eq!(pool.small.load(Ordering::Relaxed), before + 1);
}
