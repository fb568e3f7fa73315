//! The session with etcd: list, watch, write, notice that the server is gone, go to the next.
//!
//! What the watch reports is never applied key by key. One transaction touches keys of several
//! watches, which arrive one after the other, and no message of a 3.4 server tells where its
//! transaction ends (its progress reports may overtake events). So an event says only *that*
//! something changed; then everything is read anew, at one revision. Half a transaction can
//! never be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use etcd_client::{
    GetOptions, KvClient, Txn, TxnOp, WatchClient, WatchOptions, WatchResponse, WatchStream,
};
use smol::Timer;
use smol::future::or;

use super::Entry;
use super::backoff;
use super::channel::{Connection, connect, within};
use super::endpoint::Endpoint;
use super::error::{Error, ErrorKind, canceled};
use super::list::{ANSWER_MAX, Listing, Reader, list};
use super::login::Login;
use super::mailbox::{Letter, Receiver, Sender};
use super::ranges::{Kind, Scope};
use super::writes::Writes;
use crate::config::{EtcdLogin, EtcdTls, NodeName, RouterName};
use crate::linux::clock;
use crate::node::Instant;

/// Least time between two readings of everything, so that a storm of changes costs little.
const LIST_INTERVAL: Duration = Duration::from_millis(50);
/// Keys of one transaction: below the servers' default of 128 operations.
const PUTS_MAX: usize = 100;
/// A session that lived that long was a good one; the next failure is the first again.
const STEADY: Duration = Duration::from_secs(10);
/// Readings in a row that a compaction may spoil.
const COMPACTED_MAX: u32 = 5;

const WATCHING: &str = "watching";
const WRITING: &str = "writing";
const PROBING: &str = "asking whether it is alive";

/// What to connect to, and for whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// Members of one cluster, at least one; each is tried in turn, from one chosen at random.
    pub endpoints: Vec<Endpoint>,
    /// Prefix of all keys; ends in a slash.
    pub prefix: String,
    /// Whose configuration is read.
    pub node: NodeName,
    /// Certificates and how they are checked, for the endpoints with https.
    pub tls: EtcdTls,
    /// User and password.
    pub login: Option<EtcdLogin>,
    /// Longest time for name and connection (default 2 s).
    pub dial_timeout: Duration,
    /// Longest time for an answer (default 2.5 s).
    pub call_timeout: Duration,
    /// Longest silence before the server is asked whether it is alive (default 2.5 s). That it is
    /// not is known after this and `call_timeout`.
    pub probe_interval: Duration,
}

impl Options {
    /// Without user and certificates, with the default times.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, prefix: String, node: NodeName) -> Self {
        Self {
            endpoints,
            prefix,
            node,
            tls: EtcdTls::default(),
            login: None,
            dial_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_millis(2500),
            probe_interval: Duration::from_millis(2500),
        }
    }
}

/// What the daemon wants of the store. The newest demand replaces all of the older one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Keys that shall hold these values, and be put right when another changes them. A key that
    /// is not listed any more is left as it stands.
    pub writes: BTreeMap<String, String>,
    /// Routers whose keys are read beside those that the node's key in the store lists: those that
    /// the local file lists, and those that run although the store lists them no more.
    pub routers: BTreeSet<RouterName>,
}

impl Letter for Demand {
    fn replaces(&self, _older: &Self) -> bool {
        true
    }
}

/// All keys that say what the node shall do, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Of the whole store.
    pub revision: i64,
    /// Which store. Another one, or an older revision, means that the store was replaced or
    /// restored.
    pub cluster_id: u64,
    /// Sorted by key. Keys that nodes write (`vRouterGateway/`) are not among them.
    pub entries: Vec<Entry>,
}

/// What the store has to say.
#[derive(Debug)]
pub enum StoreEvent {
    /// An endpoint answers; a state follows.
    Connected {
        /// Which one.
        endpoint: Endpoint,
    },
    /// The complete present configuration; it differs from the one before, or is the first after
    /// a connection.
    State(State),
    /// No endpoint answers, or the one that did does not any more. Repeated with each attempt.
    Lost {
        /// The last failure; it names the endpoint.
        error: Error,
        /// Since when nothing was heard.
        since: Instant,
    },
    /// The server refused to write a key; it will be tried again, more and more rarely.
    WriteRefused {
        /// Which one.
        key: String,
        /// Why.
        error: Error,
    },
}

impl Letter for StoreEvent {
    fn replaces(&self, older: &Self) -> bool {
        match (self, older) {
            // As many as there are keys to write.
            (Self::WriteRefused { key, .. }, Self::WriteRefused { key: older, .. }) => key == older,
            _ => std::mem::discriminant(self) == std::mem::discriminant(older),
        }
    }
}

/// Follows the store until `demands` or `events` has no other end any more. Drop the future to
/// end it at once.
pub async fn run(options: Options, demands: Receiver<Demand>, events: Sender<StoreEvent>) {
    let mut follower = Follower {
        options: &options,
        demands: &demands,
        events: &events,
        writes: Writes::default(),
        routers: BTreeSet::new(),
        heard_at: clock::now(),
    };
    or(events.closed(), follower.run()).await;
}

/// Why a session ended.
enum End {
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
struct Follower<'a> {
    options: &'a Options,
    demands: &'a Receiver<Demand>,
    events: &'a Sender<StoreEvent>,
    writes: Writes,
    /// Of the demand.
    routers: BTreeSet<RouterName>,
    /// When a server last said something.
    heard_at: Instant,
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

    fn take(&mut self, demand: Demand) {
        self.writes.want(clock::now(), demand.writes);
        self.routers = demand.routers;
    }

    async fn session(&mut self, endpoint: &Endpoint) -> End {
        let Connection { client, mut drive, login } = match connect(endpoint, self.options).await {
            Ok(connection) => connection,
            Err(error) => return End::Failed(error),
        };
        let session = Session {
            kv: client.kv_client().max_decoding_message_size(ANSWER_MAX),
            watch: client.watch_client().max_decoding_message_size(ANSWER_MAX),
            login,
            endpoint,
            listed: None,
            stream: None,
            stale: true,
            singly: false,
            list_at: Instant::ZERO,
            probe_at: Instant::ZERO,
            follower: self,
        };
        let started_at = clock::now();
        match or(async { End::Failed(drive.run().await) }, session.run()).await {
            End::Failed(error) if self.heard_at < started_at => End::Failed(error.unheard()),
            end => end,
        }
    }
}

/// One connection's life.
struct Session<'a, 'b> {
    kv: KvClient,
    watch: WatchClient,
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
    /// When the server is asked whether it is alive.
    probe_at: Instant,
    follower: &'a mut Follower<'b>,
}

enum Wake {
    Demand(Option<Demand>),
    Message(Result<Option<WatchResponse>, etcd_client::Error>),
    Time,
}

impl Session<'_, '_> {
    async fn run(mut self) -> End {
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
        while self.put().await? {
            // A node that is not active any more must not go on writing that it is.
            if let Some(demand) = self.follower.demands.try_recv() {
                self.take(demand);
            }
        }
        if clock::now() >= self.probe_at {
            probe(&mut self.kv, self.endpoint, self.follower.options).await?;
            self.heard();
        }
        match self.wake().await {
            Wake::Demand(None) => return Err(End::Quit),
            Wake::Demand(Some(demand)) => self.take(demand),
            Wake::Message(Err(error)) => {
                return Err(Error::call(self.endpoint, WATCHING, error).into());
            }
            Wake::Message(Ok(None)) => {
                let detail = "the server ended the stream";
                return Err(Error::new(self.endpoint, WATCHING, ErrorKind::Closed, detail).into());
            }
            Wake::Message(Ok(Some(message))) => self.message(&message)?,
            Wake::Time => {}
        }
        Ok(())
    }

    fn take(&mut self, demand: Demand) {
        self.follower.take(demand);
        // What is watched may not cover it.
        self.stale |= self
            .listed
            .as_ref()
            .is_none_or(|listed| listed.scope != self.scope().with_listed(&listed.config));
    }

    fn scope(&self) -> Scope {
        let Options { prefix, node, .. } = self.follower.options;
        let outputs = self.follower.writes.keys().map(str::to_owned).collect();
        Scope::new(prefix, node, &self.follower.routers, outputs)
    }

    /// Reads everything, reports it if it is new, and watches what has to be watched now.
    async fn list(&mut self) -> Result<(), Error> {
        let mut compacted = 0;
        let listing = loop {
            let mut reader = Reader {
                kv: self.kv.clone(),
                endpoint: self.endpoint,
                timeout: self.follower.options.call_timeout,
            };
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
        self.stale = false;
        self.list_at = clock::now() + LIST_INTERVAL;
        self.follower.writes.listed(listing.revision, listing.outputs.clone());
        let before = self.listed.as_ref();
        if before.is_none() {
            let endpoint = self.endpoint.clone();
            self.follower.events.send(StoreEvent::Connected { endpoint });
        }
        if before.is_none_or(|before| before.config != listing.config) {
            self.follower.events.send(StoreEvent::State(State {
                revision: listing.revision,
                cluster_id: listing.cluster_id,
                entries: listing.config.clone(),
            }));
        }
        if self.stream.is_none() || before.is_none_or(|before| before.scope != listing.scope) {
            self.stream = None;
            self.stream = Some(self.watch(&listing).await?);
        }
        self.listed = Some(listing);
        Ok(())
    }

    /// Watches everything that was read, from where it was read, on one stream.
    async fn watch(&mut self, listing: &Listing) -> Result<WatchStream, Error> {
        let endpoint = self.endpoint;
        let from = listing.revision.saturating_add(1);
        let mut watches = (1..).zip(listing.scope.all()).map(|(id, range)| {
            let options = WatchOptions::new().with_watch_id(id).with_start_revision(from);
            let options =
                if range.end.is_empty() { options } else { options.with_range(range.end) };
            (range.key, options)
        });
        let open = async {
            // The node's own keys are always watched, so that there is a first one.
            let (key, options) = watches.next().unwrap_or_default();
            let mut stream = self.watch.watch(key, Some(options)).await?;
            for (key, options) in watches {
                stream.watch(key, Some(options)).await?;
            }
            Ok(stream)
        };
        within(endpoint, WATCHING, self.follower.options.call_timeout, open).await
    }

    fn message(&mut self, message: &WatchResponse) -> Result<(), Error> {
        self.heard();
        if message.canceled() {
            self.stream = None;
            self.stale = true;
            if message.compact_revision() == 0 {
                let reason = message.cancel_reason();
                return Err(Error::new(self.endpoint, WATCHING, canceled(reason), reason));
            }
        }
        let Some(listed) = &self.listed else { return Ok(()) };
        for kv in message.events().iter().filter_map(etcd_client::Event::kv) {
            if kv.mod_revision() <= listed.revision {
                continue;
            }
            match listed.scope.kind(kv.key()) {
                None => {}
                Some(Kind::Config) => self.stale = true,
                Some(Kind::Output) => {
                    let key = String::from_utf8_lossy(kv.key());
                    // A deletion has version 0; the type would panic at a value that is none.
                    let value = (kv.version() != 0).then(|| kv.value());
                    self.follower.writes.changed(&key, value, kv.mod_revision());
                }
            }
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
        let puts: Vec<TxnOp> =
            due.iter().map(|(key, value)| TxnOp::put(key.as_str(), value.as_str(), None)).collect();
        let call = self.kv.txn(Txn::new().and_then(puts));
        let timeout = self.follower.options.call_timeout;
        let result = within(self.endpoint, WRITING, timeout, call).await;
        let now = clock::now();
        let writes = &mut self.follower.writes;
        match (result, due.as_slice()) {
            (Ok(answer), due) => {
                let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
                due.iter().for_each(|(key, value)| writes.done(now, key, value, revision));
            }
            (Err(error), due) if error.kind().ends_session() => {
                due.iter().for_each(|(key, _)| writes.failed(now, key));
                return Err(error);
            }
            (Err(error), [(key, _)]) => {
                // Its opinion of this key; reading goes on.
                writes.refused(now, key);
                let key = key.clone();
                self.follower.events.send(StoreEvent::WriteRefused { key, error });
            }
            // One of them may have spoilt it for all.
            (Err(_), _) => self.singly = true,
        }
        self.heard();
        Ok(true)
    }

    fn heard(&mut self) {
        let now = clock::now();
        self.follower.heard_at = now;
        self.probe_at = now + self.follower.options.probe_interval;
    }

    async fn wake(&mut self) -> Wake {
        let mut until = self.probe_at;
        if self.stale {
            until = until.min(self.list_at);
        }
        let renew_at = self.login.as_ref().and_then(|login| login.renew_at);
        for at in [self.follower.writes.next_deadline(), renew_at].into_iter().flatten() {
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

/// A small question, as the server must answer it also when nothing changes. Pings do not do:
/// servers take them for an attack when they come quickly enough to be of use.
pub(super) async fn probe(
    kv: &mut KvClient,
    endpoint: &Endpoint,
    options: &Options,
) -> Result<(), Error> {
    let key = format!("{}node/{}/vrids", options.prefix, options.node);
    let question = GetOptions::new().with_serializable().with_count_only();
    within(endpoint, PROBING, options.call_timeout, kv.get(key, Some(question))).await.map(drop)
}
