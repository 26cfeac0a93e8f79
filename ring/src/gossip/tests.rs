use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex as StdMutex, Weak};

use tokio::time::{sleep, timeout};

use super::*;
use crate::member::Trouble;

const INTERVAL: Duration = Duration::from_secs(1);
const CLUSTER: ClusterId = ClusterId(5);

/// Addresses, who listens there, and which pairs of addresses don't reach each other.
#[derive(Default)]
struct Network {
    listeners: StdMutex<BTreeMap<String, Weak<Gossip>>>,
    cut: StdMutex<BTreeSet<(String, String)>>,
    refused: StdMutex<Vec<(String, Refused)>>,
    largest: StdMutex<usize>,
    sent: StdMutex<usize>,
}

struct Port {
    network: Arc<Network>,
    address: String,
}

impl Transport for Port {
    fn send(&self, to: &str, frame: Vec<u8>) {
        let (network, from, to) = (self.network.clone(), self.address.clone(), to.to_owned());
        tokio::spawn(async move {
            *network.sent.lock().unwrap() += 1;
            let mut largest = network.largest.lock().unwrap().to_owned();
            largest = largest.max(frame.len());
            *network.largest.lock().unwrap() = largest;
            sleep(Duration::from_millis(5)).await;
            if network.cut.lock().unwrap().contains(&(from.clone(), to.clone())) {
                return;
            }
            let listener = network.listeners.lock().unwrap().get(&to).and_then(Weak::upgrade);
            if let Some(Err(refused)) = listener.map(|gossip| gossip.receive(&frame)) {
                network.refused.lock().unwrap().push((from, refused));
            }
        });
    }
}

impl Network {
    fn start(self: &Arc<Self>, me: Me, address: &str, seeds: &[&str]) -> Arc<Gossip> {
        let port = Arc::new(Port { network: self.clone(), address: address.to_owned() });
        let profile =
            Profile { name: address.to_owned(), peer_address: address.to_owned(), ..Profile::default() };
        let seeds = seeds.iter().map(|seed| (*seed).to_owned()).collect();
        let gossip = Arc::new(Gossip::start(me, profile, seeds, port, INTERVAL));
        self.listeners.lock().unwrap().insert(address.to_owned(), Arc::downgrade(&gossip));
        gossip
    }

    fn members(self: &Arc<Self>, count: u32) -> Vec<Arc<Gossip>> {
        (0..count).map(|i| self.start(me(i), &address(i), &[&address(0)])).collect()
    }

    fn cut(&self, from: u32, to: u32) {
        self.cut.lock().unwrap().insert((address(from), address(to)));
    }

    fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }

    fn refused(&self) -> Vec<(String, Refused)> {
        self.refused.lock().unwrap().clone()
    }
}

fn me(i: u32) -> Me {
    Me { cluster: CLUSTER, store: store(i), incarnation: 1, instance: u64::from(i) + 1000 }
}

fn store(i: u32) -> StoreId {
    crate::epoch::tests::store(i)
}

fn address(i: u32) -> String {
    format!("node{i}:9201")
}

fn alive(gossip: &Gossip) -> BTreeSet<StoreId> {
    let members = gossip.members().borrow().clone();
    members.seen.iter().filter(|(_, seen)| seen.alive).map(|(store, _)| *store).collect()
}

fn stores(range: std::ops::Range<u32>) -> BTreeSet<StoreId> {
    range.map(store).collect()
}

/// Seconds until all of `gossips` see exactly these members alive.
async fn until(gossips: &[Arc<Gossip>], expected: &BTreeSet<StoreId>) -> f64 {
    let begin = Instant::now();
    let agree = async {
        while !gossips.iter().all(|gossip| alive(gossip) == *expected) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(600), agree).await.expect("members agree at last");
    begin.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn twenty_members_find_each_other_and_see_a_death_in_time() {
    let network = Arc::new(Network::default());
    let mut gossips = network.members(20);
    let formed = until(&gossips, &stores(0..20)).await;
    assert!(formed <= 30.0, "{formed}");
    sleep(Duration::from_secs(120)).await;
    drop(gossips.pop());
    let noticed = until(&gossips, &stores(0..19)).await;
    assert!((5.0..=15.0).contains(&noticed), "{noticed}");
    let (largest, sent) = (*network.largest.lock().unwrap(), *network.sent.lock().unwrap());
    println!("formed {formed:.1} s, noticed {noticed:.1} s, largest frame {largest}, frames {sent}");
    assert!(largest < 16 << 10);
}

#[tokio::test(start_paused = true)]
async fn nobody_flaps_while_all_is_well_or_a_third_of_messages_is_lost_one_way() {
    let network = Arc::new(Network::default());
    let gossips = network.members(6);
    until(&gossips, &stores(0..6)).await;
    // 0 hears nobody directly but 1, and nobody hears 2 but 3.
    for other in 0..6 {
        if other != 1 {
            network.cut(other, 0);
        }
        if other != 3 {
            network.cut(2, other);
        }
    }
    for _ in 0..300 {
        sleep(INTERVAL).await;
        for (i, gossip) in gossips.iter().enumerate() {
            assert_eq!(alive(gossip), stores(0..6), "{i}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_suspects_itself_and_comes_back() {
    let network = Arc::new(Network::default());
    let gossips = network.members(5);
    until(&gossips, &stores(0..5)).await;
    for other in 0..4 {
        network.cut(4, other);
        network.cut(other, 4);
    }
    until(&gossips[..4], &stores(0..4)).await;
    until(&gossips[4..], &stores(4..5)).await;
    assert!(gossips[4].members().borrow().suspects_itself);
    assert!(!gossips[0].members().borrow().suspects_itself);
    // So long that everybody has forgotten the other side.
    sleep(DEAD_GRACE * 3).await;
    assert_eq!(gossips[0].members().borrow().seen.len(), 4);
    network.heal();
    let healed = until(&gossips, &stores(0..5)).await;
    assert!(healed <= 30.0, "{healed}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_noticed_as_a_new_incarnation() {
    let network = Arc::new(Network::default());
    let mut gossips = network.members(4);
    until(&gossips, &stores(0..4)).await;
    drop(gossips.pop());
    let again = Me { incarnation: 2, instance: 1, ..me(3) };
    gossips.push(network.start(again, "moved:9201", &[&address(0)]));
    sleep(Duration::from_secs(30)).await;
    until(&gossips, &stores(0..4)).await;
    for gossip in &gossips {
        let seen = gossip.members().borrow().seen[&store(3)].clone();
        assert_eq!((seen.incarnation, seen.profile.peer_address.as_str()), (2, "moved:9201"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_member_says_reaches_everybody() {
    let network = Arc::new(Network::default());
    let gossips = network.members(8);
    until(&gossips, &stores(0..8)).await;
    gossips[3].say(Profile { ring_epoch: 7, ready: true, peer_address: address(3), ..Profile::default() });
    sleep(Duration::from_secs(10)).await;
    for gossip in &gossips {
        let seen = gossip.members().borrow().seen[&store(3)].clone();
        assert_eq!((seen.profile.ring_epoch, seen.profile.ready), (7, true));
    }
}

#[tokio::test(start_paused = true)]
async fn other_clusters_are_refused_and_named() {
    let network = Arc::new(Network::default());
    let gossips = network.members(3);
    let foreign = Me { cluster: ClusterId(6), ..me(9) };
    let stranger = network.start(foreign, &address(9), &[&address(0)]);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(alive(&stranger), stores(9..10));
    until(&gossips, &stores(0..3)).await;
    let trouble = Trouble::Foreign { cluster: ClusterId(6), address: address(9) };
    assert_eq!(gossips[0].members().borrow().troubles, [trouble]);
    let refused = Refused::Foreign { ours: CLUSTER, theirs: ClusterId(6) };
    assert!(network.refused().contains(&(address(9), refused)));
}

#[tokio::test(start_paused = true)]
async fn a_seed_that_is_itself_is_left_alone() {
    let network = Arc::new(Network::default());
    // By its own address and by another name for it.
    let gossip = network.start(me(0), &address(0), &[&address(0), "alias:9201"]);
    network.listeners.lock().unwrap().insert("alias:9201".to_owned(), Arc::downgrade(&gossip));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(alive(&gossip), stores(0..1));
    let members = gossip.members().borrow().clone();
    assert!(members.troubles.is_empty() && !members.suspects_itself);
}

#[tokio::test(start_paused = true)]
async fn twins_are_found_and_the_later_one_is_told() {
    let network = Arc::new(Network::default());
    let gossips = network.members(3);
    until(&gossips, &stores(0..3)).await;
    let twin = Me { instance: 77, ..me(2) };
    let _twin = network.start(twin, &address(9), &[&address(0)]);
    sleep(Duration::from_secs(10)).await;
    let trouble = Trouble::Twins { store: store(2), first: address(2), second: address(9) };
    assert_eq!(gossips[0].members().borrow().troubles, [trouble]);
    assert!(network.refused().contains(&(address(9), Refused::Twin { first: address(2) })));
    until(&gossips, &stores(0..3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_put_back_is_refused() {
    let network = Arc::new(Network::default());
    let gossips = network.members(2);
    let later = Me { incarnation: 5, ..me(2) };
    let later = network.start(later, &address(2), &[&address(0)]);
    sleep(Duration::from_secs(10)).await;
    drop(later);
    let earlier = Me { incarnation: 4, instance: 3, ..me(2) };
    let _earlier = network.start(earlier, &address(2), &[&address(0)]);
    sleep(Duration::from_secs(10)).await;
    let refused = Refused::RolledBack { incarnation: 4, highest: 5 };
    assert!(network.refused().contains(&(address(2), refused)));
    assert!(matches!(gossips[0].members().borrow().troubles[..], [Trouble::RolledBack { .. }]));
}

#[tokio::test(start_paused = true)]
async fn garbage_and_other_versions_change_nothing() {
    let network = Arc::new(Network::default());
    let gossips = network.members(3);
    until(&gossips, &stores(0..3)).await;
    assert!(matches!(gossips[0].receive(b""), Err(Refused::Garbage(_))));
    assert_eq!(gossips[0].receive(&[9; 100]), Err(Refused::Version { version: 9 }));
    let frame = |message: &[u8], to| {
        let (cluster, store) = (CLUSTER, store(8));
        Frame { cluster, store, incarnation: 1, instance: 1, to, address: "x:1", message }.encode()
    };
    assert!(matches!(gossips[0].receive(&frame(b"nonsense", None)), Err(Refused::Garbage(_))));
    assert_eq!(gossips[0].receive(&frame(b"", Some(store(4)))), Err(Refused::Stray { here: store(0) }));
    assert!(matches!(gossips[0].receive(&vec![VERSION; MAX_FRAME_BYTES + 1]), Err(Refused::Garbage(_))));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(alive(&gossips[0]), stores(0..3));
}

/// A list of members can be made up by whoever talks to us; it must not grow beyond what fits into a message.
#[tokio::test(start_paused = true)]
async fn made_up_members_are_bounded() {
    let network = Arc::new(Network::default());
    let gossips = network.members(2);
    until(&gossips, &stores(0..2)).await;
    let mut refused = 0;
    for round in 0..4_u32 {
        let mut message = vec![0x53, 0xb0, 0, 0];
        message.extend_from_slice(&200_u16.to_le_bytes());
        for i in 0..200 {
            let store = store(1_000 + round * 200 + i);
            let name = short_name(store);
            message.extend_from_slice(&(name.len() as u16).to_le_bytes());
            message.extend_from_slice(name.as_bytes());
            message.extend_from_slice(&1_u64.to_le_bytes());
            message.push(6);
            message.extend_from_slice(&store.0.to_be_bytes());
            message.extend_from_slice(&1_u16.to_le_bytes());
            message.extend_from_slice(&[0; 24]);
        }
        let cluster = CLUSTER.to_string();
        message.extend_from_slice(&(cluster.len() as u16).to_le_bytes());
        message.extend_from_slice(cluster.as_bytes());
        let (cluster, store) = (CLUSTER, store(1));
        let instance = me(1).instance;
        let frame = Frame {
            cluster,
            store,
            incarnation: 1,
            instance,
            to: None,
            address: &address(1),
            message: &message,
        };
        refused += u32::from(gossips[0].receive(&frame.encode()) == Err(Refused::Crowded));
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(refused, 2);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(alive(&gossips[0]), stores(0..2));
}

/// A message of member 1 that says of member `of`: key `profile` has this version, and then the highest version is so.
fn forged(of: u32, version: u64, highest: u64) -> Vec<u8> {
    let name = short_name(store(of));
    let mut operations = vec![0];
    operations.extend_from_slice(&(name.len() as u16).to_le_bytes());
    operations.extend_from_slice(name.as_bytes());
    operations.extend_from_slice(&(me(of).incarnation << RESTART_BITS).to_le_bytes());
    operations.push(6);
    operations.extend_from_slice(&store(of).0.to_be_bytes());
    operations.extend_from_slice(&1_u16.to_le_bytes());
    operations.extend_from_slice(&[0; 16]);
    operations.extend_from_slice(&[1, 7, 0]);
    operations.extend_from_slice(b"profile");
    operations.extend_from_slice(&[2, 0, b'{', b'}']);
    operations.extend_from_slice(&version.to_le_bytes());
    operations.extend_from_slice(&[0, 2]);
    operations.extend_from_slice(&highest.to_le_bytes());
    let mut message = vec![0x53, 0xb0, 0, 2, 2];
    message.extend_from_slice(&(operations.len() as u16).to_le_bytes());
    message.extend_from_slice(&operations);
    message.push(0);
    let Me { cluster, store, incarnation, instance } = me(1);
    Frame { cluster, store, incarnation, instance, to: None, address: &address(1), message: &message }
        .encode()
}

/// Chitchat asserts that versions in a message grow, and applies messages of anybody about anybody.
#[tokio::test(start_paused = true)]
async fn messages_that_break_chitchat_are_survived() {
    let network = Arc::new(Network::default());
    let gossips = network.members(3);
    until(&gossips, &stores(0..3)).await;
    for (epoch, (of, version, highest)) in
        [(1, 100, 50), (0, 200, 200), (0, u64::MAX, u64::MAX)].into_iter().enumerate()
    {
        assert_eq!(gossips[0].receive(&forged(of, version, highest)), Ok(()));
        sleep(Duration::from_secs(1)).await;
        let ring_epoch = epoch as u64 + 5;
        gossips[0].say(Profile { ring_epoch, peer_address: address(0), ..Profile::default() });
        sleep(Duration::from_secs(30)).await;
        until(&gossips, &stores(0..3)).await;
        for gossip in &gossips {
            assert_eq!(gossip.members().borrow().seen[&store(0)].profile.ring_epoch, ring_epoch);
        }
    }
}
