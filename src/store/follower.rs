//! Following etcd: one session after another, each at the next endpoint, and what outlives them.

use std::collections::BTreeMap;
use std::time::Duration;

use smol::Timer;
use smol::future::or;

use super::backoff;
use super::channel::{Connection, connect};
use super::endpoint::Endpoint;
use super::error::{Error, ErrorKind};
use super::letters::{Demand, Options, StoreEvent};
use super::mailbox::{Receiver, Sender};
use super::presence::Presence;
use super::session::Session;
use super::writes::{Seen, Want, Writes};
use crate::linux::clock;
use crate::node::Instant;

/// A session that lived that long was a good one; the next failure is the first again.
const STEADY: Duration = Duration::from_secs(10);

/// Follows the store until `demands` or `events` has no other end any more. Drop the future to
/// end it at once.
pub async fn run(options: Options, demands: Receiver<Demand>, events: Sender<StoreEvent>) {
    let mut follower = Follower {
        options: &options,
        demands: &demands,
        events: &events,
        demand: Demand::default(),
        writes: Writes::default(),
        presence: Presence::new(),
        heard_at: clock::now(),
    };
    or(events.closed(), follower.run()).await;
}

/// Why a session ended.
pub(super) enum End {
    /// Nobody wants it any more.
    Quit,
    /// It broke.
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What outlives a session.
pub(super) struct Follower<'a> {
    pub(super) options: &'a Options,
    pub(super) demands: &'a Receiver<Demand>,
    pub(super) events: &'a Sender<StoreEvent>,
    /// The newest.
    pub(super) demand: Demand,
    pub(super) writes: Writes,
    pub(super) presence: Presence,
    /// When a server last said something.
    pub(super) heard_at: Instant,
}

impl Follower<'_> {
    async fn run(&mut self) {
        let endpoints = &self.options.endpoints;
        let mut state = clock::now().nanos() ^ u64::from(std::process::id());
        // Nodes that start together spread over the members.
        let start = usize::try_from(backoff::random(&mut state) >> 33).unwrap_or(0);
        let mut failures: u32 = 0;
        for turn in start.. {
            let Some(endpoint) = endpoints.get(turn % endpoints.len().max(1)) else { return };
            let started_at = clock::now();
            let error = match self.session(endpoint).await {
                End::Quit => return,
                End::Failed(error) => error,
            };
            // One that answers and then refuses each time is waited for as one that is mute.
            let steady = self.heard_at.since(started_at) >= STEADY;
            failures = if steady { 1 } else { failures.saturating_add(1) };
            let kind = error.kind();
            self.events.send(StoreEvent::Lost { error, since: self.heard_at });
            let random = backoff::random(&mut state);
            let wait = match kind {
                ErrorKind::WrongPassword => backoff::slow(random),
                _ => backoff::wait(failures, endpoints.len(), random),
            };
            if !self.pause(wait).await {
                return;
            }
        }
    }

    /// Waits, and takes demands meanwhile. `false`: nobody wants anything any more.
    async fn pause(&mut self, wait: Duration) -> bool {
        let until = clock::now() + wait;
        loop {
            let left = until.since(clock::now());
            if left.is_zero() {
                return true;
            }
            let demand = or(async { Some(self.demands.recv().await) }, async {
                Timer::after(left).await;
                None
            });
            match demand.await {
                Some(Some(demand)) => self.take(demand),
                Some(None) => return false,
                None => return true,
            }
        }
    }

    pub(super) fn take(&mut self, mut demand: Demand) {
        self.presence.want(demand.report.take());
        self.demand = demand;
        self.want();
    }

    /// Where this node says that it lives.
    pub(super) fn status_key(&self) -> String {
        format!("{}status/{}", self.options.prefix, self.options.node)
    }

    /// What stands there.
    pub(super) fn status_seen(&self) -> Option<&Seen> {
        self.writes.seen(&self.status_key())
    }

    /// Makes up anew what should stand where.
    pub(super) fn want(&mut self) {
        let plain = |(key, value): (&String, &String)| {
            (key.clone(), Want { value: value.clone(), lease: 0 })
        };
        let mut wanted: BTreeMap<String, Want> = self.demand.writes.iter().map(plain).collect();
        if let Some(want) = self.presence.wanted(self.status_seen()) {
            wanted.insert(self.status_key(), want);
        }
        self.writes.want(clock::now(), wanted);
    }

    async fn session(&mut self, endpoint: &Endpoint) -> End {
        // Before anything is read: what it means depends on who this node is.
        while let Some(demand) = self.demands.try_recv() {
            self.take(demand);
        }
        let Connection { client, mut drive, login } = match connect(endpoint, self.options).await {
            Ok(connection) => connection,
            Err(error) => return End::Failed(error),
        };
        let session = Session::new(self, endpoint, &client, login);
        let started_at = clock::now();
        match or(async { End::Failed(drive.run().await) }, session.run()).await {
            End::Failed(error) if self.heard_at < started_at => End::Failed(error.unheard()),
            end => end,
        }
    }
}
