//! The stream of frames to one peer.
//!
//! 1. Whoever routes a write encodes its frames under the stream's lock, so that refs are defined in the order in
//!    which they travel, and queues them. What is queued or unanswered is bounded in bytes of the requests it holds:
//!    beyond that, and while the peer is silent, items are missed at once and become hints.
//! 2. One task keeps the stream, sends what is queued, and hands verdicts to the rounds. Series that the peer
//!    doesn't know any more are sent again with their labels.
//! 3. When the stream breaks, or its oldest frame stays unanswered for too long, everything on it is missed, the
//!    dictionary is begun anew, and so is the stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::peer::write as pb;
use proto::peer::write::write_client::WriteClient;
use ring::StoreId;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::frames::{Cut, Cutter, Names};
use super::round::{Place, Round};
use super::tally::Word;
use super::{Shared, hinted};
use crate::grpc::frame::{Dictionary, Verdict, read_verdicts};
use crate::grpc::{Lane, MESSAGE_BYTES_MAX};

/// Frames handed to the connection and not yet taken by it.
const SENDING_MAX: usize = 8;
/// Longest wait for a stream to begin.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a stream that broke.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// How often the labels of a series are sent for one write before that is given up.
const ATTEMPTS_MAX: u8 = 3;

/// The way to one peer. Dropping it ends its task; what is under way becomes hints.
pub struct Outbound {
    inner: Arc<Inner>,
    stop: CancellationToken,
}

struct Inner {
    store: StoreId,
    shared: Arc<Shared>,
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    /// Which dictionary this is, among all that this process ever began.
    generation: u32,
    dictionary: Dictionary,
    /// The next frame begins the dictionary.
    forget: bool,
    next_id: u64,
    queue: VecDeque<pb::Frame>,
    /// Queued or sent, by id.
    unanswered: BTreeMap<u64, Unanswered>,
    unanswered_bytes: usize,
    cutter: Cutter,
}

struct Unanswered {
    round: Arc<Round>,
    places: Vec<Place>,
    bytes: usize,
    since: Instant,
    attempts: u8,
}

/// Names in the stream's dictionary, kept in the routes.
struct StreamNames<'a> {
    round: &'a Round,
    generation: u32,
}

impl Names for StreamNames<'_> {
    fn find(&self, series: u32, hop: u8) -> Option<u32> {
        let route = self.round.series_route(series).expect("only series with a route are sent");
        route.hops[usize::from(hop)].name(self.generation)
    }

    fn set(&mut self, series: u32, hop: u8, name: u32) {
        let route = self.round.series_route(series).expect("only series with a route are sent");
        route.hops[usize::from(hop)].set_name(self.generation, name);
    }
}

/// Numbers dictionaries; 0 is none.
static GENERATIONS: AtomicU32 = AtomicU32::new(1);

fn next_generation() -> u32 {
    loop {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        if generation != 0 {
            return generation;
        }
    }
}

impl Outbound {
    /// A way to `store`; its stream is begun with the first frame.
    pub fn new(store: StoreId, shared: Arc<Shared>) -> Self {
        let state = State {
            generation: next_generation(),
            dictionary: Dictionary::default(),
            forget: false,
            next_id: 1,
            queue: VecDeque::new(),
            unanswered: BTreeMap::new(),
            unanswered_bytes: 0,
            cutter: Cutter::default(),
        };
        let inner = Arc::new(Inner { store, shared, state: Mutex::new(state), wake: Notify::new() });
        let stop = CancellationToken::new();
        let (task, stopped) = (inner.clone(), stop.clone());
        inner.shared.runtime.spawn(async move {
            let run = task.run();
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = run => {}
            }
            task.fail(STOPPING);
        });
        Self { inner, stop }
    }

    /// Sends these items of a round, or misses them at once.
    pub fn submit(&self, round: &Arc<Round>, places: Vec<Place>) {
        self.inner.submit(round, places, 1);
    }
}

impl Outbound {
    /// Whether everything that was sent is answered.
    pub fn is_idle(&self) -> bool {
        self.inner.state.lock().unanswered.is_empty()
    }

    /// Ends the stream; what is under way becomes hints.
    pub fn end(&self) {
        self.stop.cancel();
        self.inner.fail(STOPPING);
    }
}

/// Why nothing more is sent.
const STOPPING: &str = "the node is stopping, or the store has left the ring";

impl Drop for Outbound {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Inner {
    fn submit(&self, round: &Arc<Round>, places: Vec<Place>, attempts: u8) {
        if places.is_empty() {
            return;
        }
        let shared = &self.shared;
        let why = if shared.peers.is_unreachable(self.store, Lane::Data) {
            "it doesn't answer"
        } else if attempts > ATTEMPTS_MAX {
            "it keeps forgetting series"
        } else if self.enqueue(round, &places, attempts) {
            return self.wake.notify_one();
        } else {
            "too much waits for it"
        };
        hinted(shared, round, self.store, places, why);
    }

    /// Encodes and queues; false when there is no room.
    fn enqueue(&self, round: &Arc<Round>, places: &[Place], attempts: u8) -> bool {
        let mut state = self.state.lock();
        let bytes_each = round.content.bytes_per_item();
        let most = self.shared.queue_bytes_max;
        // One write is taken whatever its size, or it could never be sent.
        if state.unanswered_bytes > 0 && state.unanswered_bytes + places.len() * bytes_each > most {
            return false;
        }
        let state = &mut *state;
        let mut places = VecDeque::from(places.to_vec());
        loop {
            if !Cutter::has_room(&state.dictionary) {
                state.begin_dictionary();
            }
            let mut names = StreamNames { round, generation: state.generation };
            let cut = state.cutter.next(round, &mut places, &mut state.dictionary, &mut names);
            let Some(Cut { mut frame, places }) = cut else { return true };
            frame.id = state.next_id;
            frame.forget = std::mem::take(&mut state.forget);
            state.next_id += 1;
            let bytes = places.len() * bytes_each;
            state.unanswered_bytes += bytes;
            self.shared.counters.frames(places.len());
            let unanswered =
                Unanswered { round: round.clone(), places, bytes, since: Instant::now(), attempts };
            state.unanswered.insert(frame.id, unanswered);
            state.queue.push_back(frame);
        }
    }

    /// Keeps a stream for as long as there is something to send.
    async fn run(&self) {
        loop {
            while self.state.lock().queue.is_empty() {
                self.wake.notified().await;
            }
            let why = match self.open().await {
                Ok((frames, answers)) => self.converse(&frames, answers).await,
                Err(why) => why,
            };
            tracing::debug!(store = %self.store, why, "the stream of writes ended");
            self.fail(&why);
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }

    async fn open(&self) -> Result<(mpsc::Sender<pb::Frame>, Streaming<pb::Answer>), String> {
        let said = |status: tonic::Status| status.message().to_owned();
        let channel = self.shared.peers.to_store(self.store, Lane::Data).map_err(said)?;
        let (frames, stream) = mpsc::channel(SENDING_MAX);
        let mut client = WriteClient::new(channel.timeout(OPEN_TIMEOUT).stream())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let answers = client.push(ReceiverStream::new(stream)).await.map_err(said)?;
        Ok((frames, answers.into_inner()))
    }

    /// Sends and hears until the stream ends; why it did.
    async fn converse(&self, frames: &mpsc::Sender<pb::Frame>, mut answers: Streaming<pb::Answer>) -> String {
        loop {
            let oldest = self.state.lock().unanswered.values().next().map(|frame| frame.since);
            let patience = self.shared.write_timeout;
            let expiry = oldest.map_or_else(|| Instant::now() + patience, |since| since + patience);
            let has_queued = !self.state.lock().queue.is_empty();
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => if let Err(why) = self.take(&answer) {
                        return why;
                    },
                    Ok(None) => return "it ended the stream".to_owned(),
                    Err(status) => return status.message().to_owned(),
                },
                permit = frames.reserve(), if has_queued => match permit {
                    Ok(permit) => if let Some(frame) = self.state.lock().queue.pop_front() {
                        permit.send(frame);
                    },
                    Err(_) => return "the connection broke".to_owned(),
                },
                () = self.wake.notified(), if !has_queued => {}
                () = tokio::time::sleep_until(expiry) => if oldest.is_some() {
                    return format!("no answer in {patience:?}");
                },
            }
        }
    }

    /// An answer to a frame.
    fn take(&self, answer: &pb::Answer) -> Result<(), String> {
        let frame = {
            let mut state = self.state.lock();
            let frame = state.unanswered.remove(&answer.id);
            let frame = frame.ok_or_else(|| format!("it answered frame {}, which wasn't sent", answer.id))?;
            state.unanswered_bytes -= frame.bytes;
            frame
        };
        let Unanswered { round, places, attempts, .. } = frame;
        if !answer.document.is_empty() {
            round.outdated();
            self.shared.membership.offer(answer.document.clone());
        }
        if !answer.refused.is_empty() {
            hinted(&self.shared, &round, self.store, places, &answer.refused);
            return Ok(());
        }
        let verdicts = match read_verdicts(&answer.outcomes, places.len()) {
            Ok(verdicts) => verdicts,
            Err(error) => {
                hinted(&self.shared, &round, self.store, places, &error.to_string());
                return Err(error.to_string());
            }
        };
        if verdicts.iter().any(|verdict| verdict.is_retry()) {
            self.take_retries(&round, &places, &verdicts, attempts);
        }
        let heard = places.iter().zip(&verdicts).filter(|(_, verdict)| !verdict.is_retry());
        round.hear(heard.map(|(place, verdict)| (*place, Word::Verdict(*verdict))));
        Ok(())
    }

    /// Sends labels again where they are wanted, and gives up what isn't the peer's.
    fn take_retries(&self, round: &Arc<Round>, places: &[Place], verdicts: &[Verdict], attempts: u8) {
        let of = |wanted: Verdict| {
            let chosen = places.iter().zip(verdicts).filter(move |(_, verdict)| **verdict == wanted);
            chosen.map(|(place, _)| *place).collect::<Vec<_>>()
        };
        let again = of(Verdict::NeedLabels);
        {
            // The lock is the stream's: nobody encodes with a ref that is about to be forgotten.
            let _state = self.state.lock();
            for place in &again {
                if let Some(route) = round.route(place.item as usize) {
                    route.hops[usize::from(place.hop)].forget();
                }
            }
        }
        self.submit(round, again, attempts + 1);
        let elsewhere = of(Verdict::NotOwner);
        if !elsewhere.is_empty() {
            hinted(
                &self.shared,
                round,
                self.store,
                elsewhere,
                "by its ring document the series aren't its own",
            );
        }
    }

    /// Misses everything on the stream, and begins the dictionary anew.
    fn fail(&self, why: &str) {
        let failed = {
            let mut state = self.state.lock();
            state.begin_dictionary();
            state.forget = false;
            state.queue.clear();
            state.unanswered_bytes = 0;
            std::mem::take(&mut state.unanswered)
        };
        for frame in failed.into_values() {
            hinted(&self.shared, &frame.round, self.store, frame.places, why);
        }
    }
}

impl State {
    fn begin_dictionary(&mut self) {
        self.dictionary.clear();
        self.generation = next_generation();
        self.forget = true;
    }
}
