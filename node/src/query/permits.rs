//! Permits and deadlines: how many queries work at once, of whom, and for how long.
//!
//! Nobody takes all there is: 1. a tenant holds at most [`TENANT_SHARE`] times as many permits as are left for others,
//! so that however many queries some tenants send, one more tenant's gets a permit at once (dynamic thresholds:
//! Choudhury and Hahne, 1998). 2. When a permit comes free, the tenant that holds fewest gets it, and of those the one
//! that has waited longest for its turn. 3. Places to wait are shared in the same way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tsdb::model::TenantId;

use super::Error;

/// A tenant holds at most this many times what is left over: alone, three quarters of all.
const TENANT_SHARE: usize = 3;

/// Permits that tenants share.
#[derive(Clone)]
pub(super) struct Permits(Arc<Shared>);

struct Shared {
    permits_max: usize,
    waiting_max: usize,
    /// Whether some are left for tenants that don't ask yet.
    is_room_kept: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: usize,
    waiting: usize,
    /// Numbers those who wait, and grants.
    counter: u64,
    /// Tenants that hold or wait.
    tenants: BTreeMap<TenantId, OfTenant>,
}

#[derive(Default)]
struct OfTenant {
    held: usize,
    /// Number of its last grant.
    granted: u64,
    /// Those who wait, oldest first.
    waiting: VecDeque<(u64, oneshot::Sender<Permit>)>,
}

/// One of the permits, given back when dropped.
pub(super) struct Permit {
    of: Permits,
    tenant: TenantId,
}

impl Permits {
    /// At most `permits_max` (1 where that is 0) are held, and at most `waiting_max` wait. Some are left for tenants that
    /// come later.
    pub(super) fn with_room(permits_max: usize, waiting_max: usize) -> Self {
        Self::new(permits_max, waiting_max, true)
    }

    /// At most `permits_max` (1 where that is 0) are held, by a single tenant if no other asks: for what doesn't take
    /// long. Who waits is bounded elsewhere.
    pub(super) fn without_room(permits_max: usize) -> Self {
        Self::new(permits_max, usize::MAX, false)
    }

    fn new(permits_max: usize, waiting_max: usize, is_room_kept: bool) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Shared { permits_max: permits_max.max(1), waiting_max, is_room_kept, state }))
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// When too many wait already, of all or of this tenant.
    pub(super) async fn take(&self, tenant: &TenantId) -> Result<Permit, Error> {
        let (granted, place) = {
            let mut state = self.0.state.lock();
            let of_tenant = state.tenants.get(tenant);
            let is_first = of_tenant.is_none_or(|of| of.waiting.is_empty());
            if is_first && self.may_hold(&state, of_tenant.map_or(0, |of| of.held)) {
                return Ok(self.grant(&mut state, tenant));
            }
            let (own, free) = (
                of_tenant.map_or(0, |of| of.waiting.len()),
                self.0.waiting_max.saturating_sub(state.waiting),
            );
            if free == 0 || own >= free.saturating_mul(TENANT_SHARE) {
                return Err(Error::Busy);
            }
            let (send, granted) = oneshot::channel();
            state.counter += 1;
            state.waiting += 1;
            let number = state.counter;
            state.tenants.entry(tenant.clone()).or_default().waiting.push_back((number, send));
            (granted, Place { of: self, tenant, number })
        };
        let permit = granted.await.expect("nobody leaves the queue but with a permit, or when nobody waits");
        drop(place);
        Ok(permit)
    }

    fn may_hold(&self, state: &State, own: usize) -> bool {
        let free = self.0.permits_max - state.held;
        free > 0 && (!self.0.is_room_kept || own < free.saturating_mul(TENANT_SHARE))
    }

    fn grant(&self, state: &mut State, tenant: &TenantId) -> Permit {
        state.counter += 1;
        state.held += 1;
        let granted = state.counter;
        let of_tenant = state.tenants.entry(tenant.clone()).or_default();
        of_tenant.held += 1;
        of_tenant.granted = granted;
        Permit { of: self.clone(), tenant: tenant.clone() }
    }

    /// Gives what is free to those who wait.
    fn pass_on(&self) {
        loop {
            let (waiter, permit) = {
                let mut state = self.0.state.lock();
                let waits = state.tenants.iter().filter(|(_, of)| !of.waiting.is_empty());
                let may = waits.filter(|(_, of)| self.may_hold(&state, of.held));
                let Some(tenant) = may.min_by_key(|(_, of)| (of.held, of.granted)).map(|(t, _)| t.clone())
                else {
                    return;
                };
                let permit = self.grant(&mut state, &tenant);
                state.waiting -= 1;
                let of_tenant = state.tenants.get_mut(&tenant).expect("it was just chosen");
                let (_, waiter) = of_tenant.waiting.pop_front().expect("those without were left out");
                (waiter, permit)
            };
            // Outside of the lock: of one who has gone, the permit comes back at once.
            drop(waiter.send(permit));
        }
    }

    fn give_back(&self, tenant: &TenantId) {
        let mut state = self.0.state.lock();
        state.held -= 1;
        if let Some(of_tenant) = state.tenants.get_mut(tenant) {
            of_tenant.held -= 1;
            if of_tenant.held == 0 && of_tenant.waiting.is_empty() {
                state.tenants.remove(tenant);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.give_back(&self.tenant);
        self.of.pass_on();
    }
}

/// A place in the queue; left when dropped, unless it has led to a permit.
struct Place<'a> {
    of: &'a Permits,
    tenant: &'a TenantId,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.of.0.state.lock();
        let state = &mut *state;
        let Some(of_tenant) = state.tenants.get_mut(self.tenant) else { return };
        let before = of_tenant.waiting.len();
        of_tenant.waiting.retain(|(number, _)| *number != self.number);
        state.waiting -= before - of_tenant.waiting.len();
        if of_tenant.held == 0 && of_tenant.waiting.is_empty() {
            state.tenants.remove(self.tenant);
        }
    }
}

/// Ends the work when whoever asked is gone: a switch that is set when this is dropped.
#[derive(Default)]
pub(super) struct Switch(Arc<AtomicBool>);

impl Switch {
    /// For those who work.
    pub(super) fn cancelled(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for `work` until the timeout.
///
/// # Errors
/// Those of `work`; [`Error::Late`].
pub(super) async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    if timeout.is_zero() {
        return Err(Error::Late(timeout));
    }
    tokio::time::timeout(timeout, work).await.map_err(|_| Error::Late(timeout))?
}

/// An error once the switch is set.
///
/// # Errors
/// [`promql::Error::Cancelled`].
pub(super) fn check(cancelled: &AtomicBool) -> Result<(), Error> {
    if cancelled.load(Ordering::Relaxed) { Err(promql::Error::Cancelled.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn take_now(permits: &Permits, name: &str) -> Option<Permit> {
        permits.take(&tenant(name)).now_or_never().map(|taken| taken.ok().unwrap())
    }

    /// One that waits, polled once.
    fn waiter(permits: &Permits, name: &'static str) -> BoxFuture<'static, Result<Permit, Error>> {
        let permits = permits.clone();
        let mut waiter = async move { permits.take(&tenant(name)).await }.boxed();
        assert!((&mut waiter).now_or_never().is_none(), "{name} needn't wait");
        waiter
    }

    fn granted(waiter: &mut BoxFuture<'static, Result<Permit, Error>>) -> Option<Permit> {
        waiter.now_or_never().map(|taken| taken.ok().unwrap())
    }

    #[test]
    fn however_many_queries_some_tenants_send_one_more_tenants_gets_a_permit_at_once() {
        let permits = Permits::with_room(32, 256);
        let mut held: Vec<_> = std::iter::from_fn(|| take_now(&permits, "hog")).collect();
        assert_eq!(held.len(), 24);
        held.extend(std::iter::from_fn(|| take_now(&permits, "hog-2")));
        assert_eq!(held.len(), 30);
        let small = take_now(&permits, "small").unwrap();
        drop(held);
        drop(small);
        assert!(permits.0.state.lock().tenants.is_empty());
    }

    #[test]
    fn tenants_are_served_by_turns_and_a_tenants_queries_in_order() {
        let permits = Permits::without_room(1);
        let first = take_now(&permits, "hog").unwrap();
        let mut hogs: Vec<_> = (0..3).map(|_| waiter(&permits, "hog")).collect();
        let mut others: Vec<_> = (0..2).map(|_| waiter(&permits, "other")).collect();
        drop(first);
        for i in 0..2 {
            let permit = granted(&mut others[i]).expect("it waited for longer than the hog's last");
            assert!(hogs.iter_mut().skip(i).all(|hog| granted(hog).is_none()));
            drop(permit);
            let permit = granted(&mut hogs[i]).expect("the other was just served");
            drop(permit);
        }
        drop(granted(&mut hogs[2]).unwrap());
        assert!(permits.0.state.lock().tenants.is_empty());
    }

    #[test]
    fn too_many_that_wait_are_refused_of_one_tenant_before_those_of_others() {
        let permits = Permits::with_room(1, 8);
        let first = take_now(&permits, "hog").unwrap();
        let waiting: Vec<_> = (0..6).map(|_| waiter(&permits, "hog")).collect();
        assert!(matches!(permits.take(&tenant("hog")).now_or_never(), Some(Err(Error::Busy))));
        let others = [waiter(&permits, "a"), waiter(&permits, "b")];
        assert!(matches!(permits.take(&tenant("c")).now_or_never(), Some(Err(Error::Busy))));
        drop((waiting, others));
        assert_eq!(permits.0.state.lock().waiting, 0);
        drop(first);
        assert!(take_now(&permits, "hog").is_some());
    }

    #[test]
    fn who_goes_away_while_waiting_or_with_a_permit_on_its_way_keeps_nothing() {
        let permits = Permits::with_room(1, 8);
        let first = take_now(&permits, "a").unwrap();
        let (gone, also_gone, mut last) =
            (waiter(&permits, "a"), waiter(&permits, "a"), waiter(&permits, "b"));
        drop(gone);
        drop(first);
        // That one was granted a permit which nobody has looked at.
        drop(also_gone);
        let permit = granted(&mut last).expect("it is the only one");
        drop(permit);
        let state = permits.0.state.lock();
        assert_eq!((state.held, state.waiting, state.tenants.len()), (0, 0, 0));
    }
}
