//! A session with a store, as the daemon would see it.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::Duration;

use havip::config::{NodeName, RouterName};
use havip::store::endpoint::Scheme;
use havip::store::mailbox::{Receiver, Sender, mailbox};
use havip::store::{Demand, Endpoint, Error, Options, State, StoreEvent, run};
use smol::Timer;
use smol::future::or;

/// Longer than anything that is waited for takes, the minute after a wrong password included.
const LIMIT: Duration = Duration::from_secs(90);

/// A running session.
pub struct Follower {
    pub demands: Option<Sender<Demand>>,
    events: Receiver<StoreEvent>,
    pub thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub fn of(endpoints: &[String]) -> Self {
        Self::with(options(endpoints))
    }

    pub fn with(options: Options) -> Self {
        let (demands, wanted) = mailbox();
        let (sender, events) = mailbox();
        let thread = std::thread::spawn(move || smol::block_on(run(options, wanted, sender)));
        Self { demands: Some(demands), events, thread: Some(thread) }
    }

    #[track_caller]
    pub fn next(&self) -> StoreEvent {
        let late = async {
            Timer::after(LIMIT).await;
            panic!("nothing was heard of the store in time")
        };
        smol::block_on(or(self.events.recv(), late)).expect("the session goes on")
    }

    /// What was heard and not looked at yet.
    pub fn try_next(&self) -> Option<StoreEvent> {
        self.events.try_recv()
    }

    #[track_caller]
    pub fn state(&self) -> State {
        loop {
            if let StoreEvent::State(state) = self.next() {
                return state;
            }
        }
    }

    /// Waits for a state that holds.
    #[track_caller]
    pub fn until(&self, holds: impl Fn(&BTreeMap<String, String>) -> bool) -> State {
        loop {
            let state = self.state();
            if holds(&values(&state)) {
                return state;
            }
        }
    }

    #[track_caller]
    pub fn lost(&self) -> Error {
        loop {
            if let StoreEvent::Lost { error, .. } = self.next() {
                return error;
            }
        }
    }

    #[track_caller]
    pub fn connected(&self) -> Endpoint {
        loop {
            if let StoreEvent::Connected { endpoint } = self.next() {
                return endpoint;
            }
        }
    }

    pub fn demand(&self, writes: &[(&str, &str)], routers: &[&str]) {
        let writes = writes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let routers =
            routers.iter().map(|name| RouterName::new(name).expect("a router's name")).collect();
        self.want(Demand { writes, routers, report: None });
    }

    pub fn want(&self, demand: Demand) {
        let sender = self.demands.as_ref().expect("the session goes on");
        assert!(sender.send(demand));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.demands = None;
        let ended = self.thread.take().expect("dropped once").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the session panicked");
    }
}

/// Of the node gw1.
pub fn options(endpoints: &[String]) -> Options {
    let endpoints = Endpoint::parse_list(endpoints.iter().map(String::as_str), Scheme::Http)
        .expect("endpoints");
    Options::new(endpoints, "/havip/".to_owned(), NodeName::new("gw1").expect("a name"))
}

pub fn values(state: &State) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    state.entries.iter().map(|entry| (text(&entry.key), text(&entry.value))).collect()
}
