//! Steady load with a book of what became of every sample, and a reader that asks every second whether all of it is
//! there.
//!
//! A writer sends one sample for each of its series, again and again, to its target. What isn't acknowledged is sent
//! again, the same samples, to the next target, until some node takes it: as a Prometheus behind a load balancer does.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::ledger::{Fate, Findings, Ledger};
use crate::{Http, now_ms, wire};

/// Series of one writer, one sample of each in a request.
const SERIES_PER_WRITER: usize = 25;
/// Between a series' samples.
const STEP_MS: i64 = 100;
/// How far back the first sample lies: far enough that no test reaches the present, near enough to be taken.
const SPAN_MS: i64 = 100 * 60_000;
/// Between a writer's requests: the tests are about what is lost, and share two cores.
const PAUSE: Duration = Duration::from_millis(10);
/// Between attempts to send what wasn't taken.
const RETRY: Duration = Duration::from_millis(50);
/// Between a reader's questions.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What the load and its readers share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Samples acknowledged, and sent at all.
    acked: AtomicU64,
    sent: AtomicU64,
    /// Answers that weren't a success, from nodes that were there to answer.
    refusals: Mutex<Vec<String>>,
    /// What readers found wrong.
    findings: Mutex<Vec<String>>,
    questions: AtomicU64,
}

/// A reader: whom it asks, how it is told to leave, and its task.
type Reader = (String, Arc<AtomicBool>, JoinHandle<()>);

/// Running load.
pub struct Load {
    name: &'static str,
    begin_ms: i64,
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<(Ledger, i64)>>,
    readers: Vec<Reader>,
}

/// What a load was told, in the end.
pub struct Book {
    /// The metric that was written.
    pub name: &'static str,
    /// Every sample and its fate.
    pub ledger: Ledger,
    /// All samples lie in `(from_ms, to_ms]`.
    pub from_ms: i64,
    /// The end of that range.
    pub to_ms: i64,
    /// Refusals of nodes that answered; a connection that broke isn't one.
    pub refusals: Vec<String>,
    /// Answers to readers that weren't complete.
    pub findings: Vec<String>,
    /// How often readers asked.
    pub questions: u64,
}

impl Load {
    /// Starts one writer for each list of targets; a writer begins with its list's first.
    pub fn start(name: &'static str, writers: Vec<Vec<Http>>) -> Self {
        let begin_ms = now_ms() - SPAN_MS;
        let shared = Arc::<Shared>::default();
        let writers = (0..)
            .zip(writers)
            .map(|(writer, targets)| tokio::spawn(write(name, writer, targets, begin_ms, shared.clone())))
            .collect();
        Self { name, begin_ms, shared, writers, readers: Vec::new() }
    }

    /// Asks this node every second, from now on, how many samples there are: at least those acknowledged before the
    /// question, at most those sent before the answer.
    pub fn read_through(&mut self, node: Http) {
        let (name, shared, begin_ms) = (self.name, self.shared.clone(), self.begin_ms);
        let (base, left) = (node.base().to_owned(), Arc::<AtomicBool>::default());
        let leave = left.clone();
        let reader = tokio::spawn(async move {
            while !shared.stop.load(Ordering::Relaxed) && !leave.load(Ordering::Relaxed) {
                let acked = shared.acked.load(Ordering::SeqCst);
                let answer = count(&node, name, begin_ms).await;
                let sent = shared.sent.load(Ordering::SeqCst);
                shared.questions.fetch_add(1, Ordering::Relaxed);
                match answer {
                    Ok(found) if (acked..=sent).contains(&found) => {}
                    Ok(found) => {
                        shared.note(format!("{found} samples; {acked} acked before, {sent} sent after"));
                    }
                    Err(why) => shared.note(why),
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        });
        self.readers.push((base, left, reader));
    }

    /// Asks this node no longer; on return no question is under way.
    pub async fn stop_reading_through(&mut self, node: &Http) {
        let (going, staying): (Vec<Reader>, _) =
            std::mem::take(&mut self.readers).into_iter().partition(|(at, ..)| at == node.base());
        self.readers = staying;
        for (_, leave, reader) in going {
            leave.store(true, Ordering::Relaxed);
            reader.await.unwrap();
        }
    }

    /// Samples acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Refusals so far.
    pub fn refusals(&self) -> usize {
        self.shared.refusals.lock().unwrap().len()
    }

    /// Ends it.
    pub async fn finish(self) -> Book {
        self.shared.stop.store(true, Ordering::Relaxed);
        let (mut ledger, mut to_ms) = (Ledger::default(), self.begin_ms);
        for writer in self.writers {
            let (notes, last_ms) = writer.await.unwrap();
            ledger.absorb(notes);
            to_ms = to_ms.max(last_ms);
        }
        for (_, _, reader) in self.readers {
            reader.await.unwrap();
        }
        let take = |list: &Mutex<Vec<String>>| std::mem::take(&mut *list.lock().unwrap());
        Book {
            name: self.name,
            ledger,
            from_ms: self.begin_ms - 1,
            to_ms,
            refusals: take(&self.shared.refusals),
            findings: take(&self.shared.findings),
            questions: self.shared.questions.load(Ordering::Relaxed),
        }
    }
}

impl Book {
    /// Compares the book with what this node answers.
    pub async fn check(&self, node: &Http) -> Findings {
        let range = format!("{}[{}ms]", self.name, self.to_ms - self.from_ms);
        self.ledger.check(&node.query(&range, self.to_ms).await)
    }
}

impl Shared {
    fn note(&self, finding: String) {
        self.findings.lock().unwrap().push(finding);
    }
}

async fn count(node: &Http, name: &str, begin_ms: i64) -> Result<u64, String> {
    let now_ms = now_ms();
    let query = format!("sum(count_over_time({name}[{}ms]))", now_ms - begin_ms + 1);
    let time = format!("{:.3}", now_ms as f64 / 1000.0);
    let asked = node.try_get("/api/v1/query", &[("query", &query), ("time", &time)]).await;
    let answer = asked.map_err(|e| format!("no answer: {e}"))?;
    if answer.status != 200 {
        return Err(format!("status {}: {}", answer.status, answer.body));
    }
    let result = &answer.json()["data"]["result"];
    let text = result[0]["value"][1].as_str().unwrap_or("0");
    text.parse().map_err(|_| format!("not a count: {}", answer.body))
}

/// Writes until told to stop; returns the book and the last timestamp, in milliseconds.
async fn write(
    name: &'static str,
    writer: usize,
    targets: Vec<Http>,
    begin_ms: i64,
    shared: Arc<Shared>,
) -> (Ledger, i64) {
    let series: Vec<_> = (0..SERIES_PER_WRITER).map(|s| format!("{writer}-{s}")).collect();
    let labels: Vec<_> = series.iter().map(|s| [("__name__", name), ("series", s.as_str())]).collect();
    let (mut ledger, mut next_ms, mut target) = (Ledger::default(), begin_ms, 0);
    while !shared.stop.load(Ordering::Relaxed) {
        let value = (next_ms % 1_000_000) as f64;
        let samples: Vec<wire::Sample<'_>> = labels.iter().map(|l| (&l[..], value, next_ms)).collect();
        let body = wire::body(&samples);
        shared.sent.fetch_add(samples.len() as u64, Ordering::SeqCst);
        let fate = loop {
            match targets[target].try_write(body.clone()).await {
                Ok(answer) if answer.status < 300 => break Fate::Acked,
                Ok(answer) => {
                    let line = format!("status {}: {}", answer.status, answer.body);
                    shared.refusals.lock().unwrap().push(line);
                }
                // Nobody is there: not a refusal.
                Err(_) => {}
            }
            if shared.stop.load(Ordering::Relaxed) {
                break Fate::Unknown;
            }
            target = (target + 1) % targets.len();
            tokio::time::sleep(RETRY).await;
        };
        series.iter().for_each(|s| ledger.note(s, next_ms, value, fate));
        if fate == Fate::Acked {
            shared.acked.fetch_add(samples.len() as u64, Ordering::SeqCst);
        }
        next_ms += STEP_MS;
        tokio::time::sleep(PAUSE).await;
    }
    (ledger, next_ms)
}
