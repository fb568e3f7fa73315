//! One session with etcd: list, watch, write, notice that the server is gone.
//!
//! What the watch reports is never applied key by key. One transaction touches keys of several
//! watches, which arrive one after the other, and no message of a 3.4 server tells where its
//! transaction ends (its progress reports may overtake events). So an event says only *that*
//! something changed; then everything is read anew, at one revision. Half a transaction can
//! never be seen.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, KeyValue, KvClient, LeaseClient, PutOptions, Txn,
    TxnOp, TxnOpResponse, TxnResponse, WatchClient, WatchOptions, WatchResponse, WatchStream,
};
use smol::Timer;
use smol::future::{or, poll_once};

use super::channel::within;
use super::endpoint::Endpoint;
use super::error::{Error, ErrorKind, canceled};
use super::follower::{End, Follower};
use super::letters::{Demand, Options, State, StoreEvent};
use super::list::{ANSWER_MAX, Listing, Reader, list};
use super::login::Login;
use super::presence::Leases;
use super::ranges::{Kind, Scope};
use super::writes::{Due, Seen};
use crate::linux::clock;
use crate::node::Instant;

/// Least time between two readings of everything, so that a storm of changes costs little.
const LIST_INTERVAL: Duration = Duration::from_millis(50);
/// Keys of one transaction: below the servers' default of 128 operations.
const PUTS_MAX: usize = 100;
/// Transactions one after the other, before the rest has its turn.
const PUTS_A_TURN: u32 = 8;
/// Between two small reads of a server that sends nothing else.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Readings in a row that a compaction may spoil.
const COMPACTED_MAX: u32 = 5;

const WATCHING: &str = "watching";
const WRITING: &str = "writing";
const ASKING: &str = "asking the watch whether it is alive";
const PROBING: &str = "asking whether it is alive";

/// One connection's life.
pub(super) struct Session<'a, 'b> {
    kv: KvClient,
    watch: WatchClient,
    leases: LeaseClient,
    login: Option<Login>,
    endpoint: &'a Endpoint,
    /// What was last read.
    listed: Option<Listing>,
    stream: Option<WatchStream>,
    /// Something changed since.
    stale: bool,
    /// A transaction of several keys was refused.
    singly: bool,
    /// Not before this, everything is read again.
    list_at: Instant,
    /// When a small read is made, which shows what the watch does not: whether this node may
    /// still read. It also keeps a token alive.
    probe_at: Instant,
    /// When the watch is asked whether it is alive.
    ask_at: Instant,
    /// When it must have said so.
    answer_by: Option<Instant>,
    /// What the last state said of it.
    told_rival: Option<String>,
    follower: &'a mut Follower<'b>,
}

enum Wake {
    Demand(Option<Demand>),
    Message(Result<Option<WatchResponse>, etcd_client::Error>),
    Time,
}

impl<'a, 'b> Session<'a, 'b> {
    pub(super) fn new(
        follower: &'a mut Follower<'b>,
        endpoint: &'a Endpoint,
        client: &Client,
        login: Option<Login>,
    ) -> Self {
        Self {
            kv: client.kv_client().max_decoding_message_size(ANSWER_MAX),
            watch: client.watch_client().max_decoding_message_size(ANSWER_MAX),
            leases: client.lease_client(),
            login,
            endpoint,
            listed: None,
            stream: None,
            stale: true,
            singly: false,
            list_at: Instant::ZERO,
            probe_at: clock::now() + PROBE_INTERVAL,
            ask_at: Instant::ZERO,
            answer_by: None,
            told_rival: None,
            follower,
        }
    }
}

impl Session<'_, '_> {
    pub(super) async fn run(mut self) -> End {
        loop {
            let end = match self.turn().await {
                Ok(()) => continue,
                Err(End::Failed(error)) if error.kind().wants_login() => self.renew(error).await,
                Err(end) => Err(end),
            };
            if let Err(end) = end {
                return end;
            }
        }
    }

    /// Logs in again, on the same connection, after a request that was refused for its token.
    async fn renew(&mut self, refused: Error) -> Result<(), End> {
        match &mut self.login {
            Some(login) if !login.is_fresh() => login.renew().await?,
            Some(_) | None => return Err(refused.into()),
        }
        // What was under way did not come to its end.
        self.stale = true;
        Ok(())
    }

    async fn turn(&mut self) -> Result<(), End> {
        if self.stale && clock::now() >= self.list_at {
            self.list().await?;
        }
        if let Some(login) = &mut self.login
            && login.renew_at.is_some_and(|at| clock::now() >= at)
        {
            login.renew().await?;
        }
        self.attend().await?;
        for _ in 0..PUTS_A_TURN {
            if !self.put().await? {
                break;
            }
            // A node that is not active any more must not go on writing that it is.
            if let Some(demand) = self.follower.demands.try_recv() {
                self.take(demand);
            }
        }
        self.ask().await?;
        if clock::now() >= self.probe_at {
            self.probe_at = clock::now() + PROBE_INTERVAL;
            probe(&mut self.kv, self.endpoint, self.follower.options).await?;
            self.heard();
        }
        match self.wake().await {
            Wake::Demand(None) => return Err(End::Quit),
            Wake::Demand(Some(demand)) => self.take(demand),
            Wake::Message(message) => self.heard_of(message)?,
            Wake::Time => {}
        }
        Ok(())
    }

    /// Says that this node lives, or that it goes.
    async fn attend(&mut self) -> Result<(), Error> {
        let seen = self.follower.status_seen().cloned();
        let leases = Leases {
            client: &mut self.leases,
            endpoint: self.endpoint,
            timeout: self.follower.options.call_timeout,
        };
        let before = self.follower.presence.lease();
        let was_refused = self.follower.presence.is_refused();
        let refused = self.follower.presence.attend(leases, seen.as_ref()).await?;
        let key = self.follower.status_key();
        match refused {
            Some(error) => _ = self.follower.events.send(StoreEvent::WriteRefused { key, error }),
            None if was_refused && !self.follower.presence.is_refused() => {
                self.follower.events.send(StoreEvent::Written { key });
            }
            None => {}
        }
        let after = self.follower.presence.lease();
        if before.is_some() && self.follower.presence.is_gone() {
            self.follower.events.send(StoreEvent::Gone);
        }
        if after != before {
            self.follower.want();
        }
        Ok(())
    }

    /// Asks the watch itself whether it lives, where it is silent: a server can answer calls
    /// and have forgotten a stream. Pings do not do: servers take them for an attack when they
    /// come quickly enough to be of use.
    async fn ask(&mut self) -> Result<(), Error> {
        let Options { call_timeout, probe_interval, .. } = *self.follower.options;
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let now = clock::now();
        if self.answer_by.is_some_and(|by| now >= by) {
            // It may be there, and nobody had the time to look.
            return match poll_once(stream.message()).await {
                Some(message) => self.heard_of(message),
                None => Err(Error::timed_out(self.endpoint, ASKING, call_timeout)),
            };
        }
        if now >= self.ask_at {
            self.ask_at = now + probe_interval;
            self.answer_by.get_or_insert(now + call_timeout);
            within(self.endpoint, ASKING, call_timeout, stream.request_progress()).await?;
        }
        Ok(())
    }

    fn take(&mut self, demand: Demand) {
        self.follower.take(demand);
        // What is watched may not cover it.
        self.stale |= self
            .listed
            .as_ref()
            .is_none_or(|listed| !listed.scope.is_as(&self.scope().with_listed(&listed.config)));
        // Who is another box depends on who this one is.
        self.tell(false);
    }

    fn scope(&self) -> Scope {
        let Options { prefix, node, .. } = self.follower.options;
        let mut outputs: BTreeSet<String> = self.follower.demand.writes.keys().cloned().collect();
        outputs.insert(self.follower.status_key());
        Scope::new(prefix, node, &self.follower.demand.routers, outputs)
    }

    /// Reads everything, reports it if it is new, and watches what has to be watched now.
    async fn list(&mut self) -> Result<(), Error> {
        let mut compacted = 0;
        let mut listing = loop {
            let timeout = self.follower.options.call_timeout;
            let mut reader = Reader::new(self.kv.clone(), self.endpoint, timeout);
            match list(&mut reader, self.scope()).await {
                Ok(listing) => break listing,
                // Between two pages; the next one begins at a newer revision.
                Err(error) if error.kind() == ErrorKind::Compacted && compacted < COMPACTED_MAX => {
                    compacted += 1;
                }
                Err(error) => return Err(error),
            }
        };
        self.heard();
        self.follower.options.counters.readings.fetch_add(1, Ordering::Relaxed);
        self.stale = false;
        self.list_at = clock::now() + LIST_INTERVAL;
        self.follower.writes.listed(listing.revision, std::mem::take(&mut listing.outputs));
        let before = self.listed.as_ref();
        if before.is_none() {
            let endpoint = self.endpoint.clone();
            self.follower.events.send(StoreEvent::Connected { endpoint });
        }
        let is_new = before.is_none_or(|before| before.config != listing.config);
        let covered = before.is_some_and(|before| before.scope.is_as(&listing.scope));
        self.follower.want();
        if !covered {
            self.stream = None;
        }
        self.listed = Some(listing);
        self.tell(is_new);
        self.open().await
    }

    /// Watches everything that was read, if that is not watched yet.
    async fn open(&mut self) -> Result<(), Error> {
        if let (None, Some(listing)) = (&self.stream, &self.listed) {
            self.stream = Some(self.watch(listing).await?);
            self.answer_by = None;
            self.ask_at = clock::now() + self.follower.options.probe_interval;
        }
        Ok(())
    }

    /// Reports what was read, if it is new, or if it is new that another has this node's name.
    fn tell(&mut self, is_new: bool) {
        let rival = self.follower.presence.rival(self.follower.status_seen());
        let Some(listing) = &self.listed else { return };
        if !is_new && rival == self.told_rival {
            return;
        }
        self.told_rival.clone_from(&rival);
        self.follower.events.send(StoreEvent::State(State {
            revision: listing.revision,
            cluster_id: listing.cluster_id,
            entries: listing.config.clone(),
            rival,
        }));
    }

    /// Watches everything that was read, from where it was read, on one stream.
    async fn watch(&self, listing: &Listing) -> Result<WatchStream, Error> {
        let endpoint = self.endpoint;
        // Not from the next one: servers do not answer for a watch that waits for what is not
        // yet, and what was read is passed over when it comes.
        let from = listing.revision;
        let mut watches = (1..).zip(listing.scope.all()).map(|(id, range)| {
            let options =
                WatchOptions::new().with_watch_id(id).with_start_revision(from).with_fragment();
            let options =
                if range.end.is_empty() { options } else { options.with_range(range.end) };
            (range.key, options)
        });
        let open = async {
            // The node's own keys are always watched, so that there is a first one.
            let (key, options) = watches.next().unwrap_or_default();
            let mut stream = self.watch.clone().watch(key, Some(options)).await?;
            for (key, options) in watches {
                stream.watch(key, Some(options)).await?;
            }
            Ok(stream)
        };
        within(endpoint, WATCHING, self.follower.options.call_timeout, open).await
    }

    /// What the watch's stream gave.
    fn heard_of(
        &mut self,
        message: Result<Option<WatchResponse>, etcd_client::Error>,
    ) -> Result<(), Error> {
        match message {
            Ok(Some(message)) => self.message(&message),
            Ok(None) => {
                let detail = "the server ended the stream";
                Err(Error::new(self.endpoint, WATCHING, ErrorKind::Closed, detail))
            }
            Err(error) => Err(Error::call(self.endpoint, WATCHING, error)),
        }
    }

    fn message(&mut self, message: &WatchResponse) -> Result<(), Error> {
        self.heard();
        self.answer_by = None;
        self.ask_at = clock::now() + self.follower.options.probe_interval;
        if message.canceled() {
            self.stream = None;
            self.stale = true;
            if message.compact_revision() == 0 {
                let reason = message.cancel_reason();
                return Err(Error::new(self.endpoint, WATCHING, canceled(reason), reason));
            }
        }
        let Some(listed) = &self.listed else { return Ok(()) };
        let mut outputs = false;
        let count = u64::try_from(message.events().len()).unwrap_or(u64::MAX);
        self.follower.options.counters.events.fetch_add(count, Ordering::Relaxed);
        for kv in message.events().iter().filter_map(etcd_client::Event::kv) {
            if kv.mod_revision() <= listed.revision {
                continue;
            }
            match listed.scope.kind(kv.key()) {
                None => {}
                Some(Kind::Config) => self.stale = true,
                Some(Kind::Output) => {
                    outputs = true;
                    let key = String::from_utf8_lossy(kv.key());
                    self.follower.writes.changed(&key, seen(kv), kv.mod_revision());
                }
            }
        }
        if outputs {
            // Another box may have this node's name now, or have it no more.
            self.follower.want();
            self.tell(false);
        }
        Ok(())
    }

    /// Puts keys that are due, many in one transaction: taking over a thousand routers must not
    /// cost the cluster a thousand revisions. `false`: none was due.
    async fn put(&mut self) -> Result<bool, Error> {
        let most = if self.singly { 1 } else { PUTS_MAX };
        let due = self.follower.writes.due(clock::now(), most);
        if due.is_empty() {
            return Ok(false);
        }
        let call = self.kv.txn(guarded(&due));
        let timeout = self.follower.options.call_timeout;
        let result = within(self.endpoint, WRITING, timeout, call).await;
        let now = clock::now();
        let writes = &mut self.follower.writes;
        match (result, due.as_slice()) {
            (Ok(answer), due) if answer.succeeded() => {
                let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
                for due in due {
                    if writes.done(now, due, revision) {
                        let key = due.key.clone();
                        self.follower.events.send(StoreEvent::Written { key });
                    }
                }
            }
            (Ok(answer), due) => self.overtaken(now, due, &answer)?,
            (Err(error), due) if error.kind().ends_session() => {
                due.iter().for_each(|due| writes.failed(now, &due.key));
                return Err(error);
            }
            (Err(error), _) if error.kind() == ErrorKind::LeaseGone => {
                self.follower.presence.lost();
                self.attend().await?;
            }
            (Err(error), [due]) => {
                // Its opinion of this key; reading goes on.
                writes.refused(now, &due.key);
                let key = due.key.clone();
                self.follower.events.send(StoreEvent::WriteRefused { key, error });
            }
            // One of them may have spoilt it for all.
            (Err(_), _) => self.singly = true,
        }
        self.heard();
        Ok(true)
    }

    /// Learns what stands where another was quicker.
    fn overtaken(&mut self, now: Instant, due: &[Due], answer: &TxnResponse) -> Result<(), Error> {
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let mut others = false;
        for (due, look) in due.iter().zip(answer.op_responses()) {
            let TxnOpResponse::Get(look) = look else { continue };
            let stands = look.kvs().first().map(seen).unwrap_or_default();
            if stands.mod_revision != due.over {
                self.follower.writes.overtaken(now, &due.key);
                others = true;
            }
            self.follower.writes.changed(&due.key, stands, revision);
        }
        if !others {
            let detail = "a transaction that did not hold although nothing had changed";
            return Err(Error::new(self.endpoint, WRITING, ErrorKind::Protocol, detail));
        }
        self.follower.want();
        self.tell(false);
        Ok(())
    }

    fn heard(&mut self) {
        self.follower.heard_at = clock::now();
    }

    async fn wake(&mut self) -> Wake {
        let mut until = self.probe_at;
        if self.stale {
            until = until.min(self.list_at);
        }
        let follower = &self.follower;
        let deadlines = [
            self.stream.as_ref().map(|_| self.ask_at),
            self.stream.as_ref().and(self.answer_by),
            self.login.as_ref().and_then(|login| login.renew_at),
            follower.presence.next_deadline(follower.status_seen()),
            follower.writes.next_deadline(),
        ];
        for at in deadlines.into_iter().flatten() {
            until = until.min(at);
        }
        let left = until.since(clock::now());
        let message = async {
            match &mut self.stream {
                Some(stream) => Wake::Message(stream.message().await),
                None => std::future::pending().await,
            }
        };
        let demand = async { Wake::Demand(self.follower.demands.recv().await) };
        let time = async {
            Timer::after(left).await;
            Wake::Time
        };
        or(demand, or(message, time)).await
    }
}

/// Puts only over what this node has seen: one that was slow must not undo its successor's word.
/// Where that is another's by now, gives what it is.
fn guarded(due: &[Due]) -> Txn {
    let guard = |due: &Due| Compare::mod_revision(due.key.as_str(), CompareOp::Equal, due.over);
    let put = |Due { key, want, .. }: &Due| {
        let options = PutOptions::new().with_lease(want.lease);
        TxnOp::put(key.as_str(), want.value.as_str(), Some(options))
    };
    let look = |due: &Due| TxnOp::get(due.key.as_str(), None);
    Txn::new()
        .when(due.iter().map(guard).collect::<Vec<_>>())
        .and_then(due.iter().map(put).collect::<Vec<_>>())
        .or_else(due.iter().map(look).collect::<Vec<_>>())
}

/// What stands at a key, by what a server says of it. A deletion has version 0.
fn seen(kv: &KeyValue) -> Seen {
    if kv.version() == 0 {
        return Seen::default();
    }
    Seen { value: Some(kv.value().to_vec()), lease: kv.lease(), mod_revision: kv.mod_revision() }
}

/// A small question.
pub(super) async fn probe(
    kv: &mut KvClient,
    endpoint: &Endpoint,
    options: &Options,
) -> Result<(), Error> {
    let key = format!("{}node/{}/vrids", options.prefix, options.node);
    let question = GetOptions::new().with_serializable().with_count_only();
    within(endpoint, PROBING, options.call_timeout, kv.get(key, Some(question))).await.map(drop)
}
