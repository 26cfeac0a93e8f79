//! An answer's body that must be at its end by a deadline.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// That `peer` took longer than `timeout`.
pub(super) fn expired(peer: &str, timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("{peer} hasn't answered in {timeout:?}"))
}

/// The body `inner`, which fails with `expired` once `deadline` is over.
pub(super) struct Bounded<B> {
    inner: B,
    sleep: Pin<Box<Sleep>>,
    expired: Option<Status>,
}

impl<B> Bounded<B> {
    pub(super) fn new(inner: B, deadline: Instant, expired: Status) -> Self {
        Self { inner, sleep: Box::pin(sleep_until(deadline)), expired: Some(expired) }
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for Bounded<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.expired.is_some() && self.sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(self.expired.take().map(Err));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
