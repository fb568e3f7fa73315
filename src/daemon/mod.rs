//! The threads and loops that join the rooms.
//!
//! - *engine*: sends adverts; does nothing that can block.
//! - *kernel*: asks the kernel for things, and may wait for it.
//! - *control*: everything else: configuration, store, log, control socket.

#[cfg(feature = "etcd")]
pub mod access;
mod channel;
mod control;
mod engine;
mod fence;
#[cfg(feature = "etcd")]
mod follow;
pub mod guard;
mod identity;
#[cfg(feature = "etcd")]
mod keep;
mod kernel;
mod ledger;
pub mod log;
mod record;
mod rests;
mod run_dir;
pub mod socket;
pub mod sources;
pub mod status;
pub mod will;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use smol::Executor;

use crate::config::{NodeName, NodeNaming, Settings};
use crate::linux::lock::LockError;
use crate::linux::netlink::{DefaultRoutes, Notifications, Requests, remove_routes};
use crate::linux::owner::{self, NotOwner};
use crate::linux::signals::{self, Signal, SignalFd};
use crate::linux::{Poll, clock, detached, hostname, rights, rt};
use crate::node::Node;
use crate::node::kernel::Snapshot;
use crate::node::record::{fenced, remembered};
use crate::offload;
pub use control::Texts;
use identity::Identity;
use kernel::JOBS_MAX;
use ledger::Ledger;
use record::Tape;
use run_dir::RunDir;
use sources::{Local, Sources};
use will::Will;

/// Reports that may wait for the control thread: two a turn, of the worst second. The queue is
/// memory from the start.
const REPORTS_MAX: usize = 512;
/// Requests that may wait for the engine.
const REQUESTS_MAX: usize = 64;
/// Bytes of the threads that never recurse.
const STACK: usize = 256 * 1024;
/// Of the one that reads configurations.
const STACK_CONTROL: usize = 4 * 1024 * 1024;
/// How long the start tries to read links and addresses that change meanwhile, and how often.
const FIRST_LOOK: Duration = Duration::from_secs(10);
const FIRST_LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long the engine, which has given up everything, waits for the rest of the daemon to end.
const LAST_WORDS: Duration = Duration::from_millis(600);
/// SCHED_RR priority of the engine: above everything that is not real-time, below what a system
/// gives its own watchdogs.
const REALTIME: u8 = 20;

/// Why the daemon could not run.
#[derive(Debug)]
pub enum Error {
    /// Another one runs, or the lock cannot be had.
    Lock(LockError),
    /// Another one runs in this network namespace.
    Owner(NotOwner),
    /// Capabilities that nothing works without.
    Rights(Vec<&'static str>),
    /// This node's name cannot be found out, or where its store is.
    Settings(String),
    /// The kernel or the file system refused something that nothing works without.
    System(&'static str, io::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lock(error) => error.fmt(f),
            Self::Owner(why) => why.fmt(f),
            Self::Rights(missing) => write!(
                f,
                "{} missing in this network namespace: start havip as root, or give it both \
                 capabilities (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW; a container: \
                 --cap-add NET_ADMIN --cap-add NET_RAW)",
                missing.join(" and ")
            ),
            Self::Settings(why) => f.write_str(why),
            Self::System(doing, error) => write!(f, "{doing}: {error}"),
        }
    }
}

impl std::error::Error for Error {}

fn system(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::System(doing, error)
}

/// Starts a thread that never recurses.
fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    let thread = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work);
    thread.map_err(|error| offload::no_task(&error))
}

/// Runs the daemon until SIGTERM or SIGINT; returns when every address is given up. `record` names
/// a file for everything that enters the node; `texts` is for who asks by a signal.
///
/// # Errors
/// It could not start, or something that nothing works without broke.
pub fn run(local: Local, record: Option<&Path>, texts: Texts) -> Result<(), Error> {
    signals::block().map_err(system("blocking signals"))?;
    // Without it, the guard's start says so.
    let _ = detached::make_room();
    // The first thread has the stack that the environment allows, which may be too small.
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("control".into()).stack_size(STACK_CONTROL);
        let thread = thread.spawn_scoped(scope, || control(local, record, texts));
        let thread = thread.map_err(|error| offload::no_task(&error));
        let result = thread.map_err(system("starting the control thread"))?.join();
        log::finish();
        result.unwrap_or_else(|_| panicked("running the control thread"))
    })
}

fn panicked(doing: &'static str) -> Result<(), Error> {
    Err(Error::System(doing, io::Error::other("it panicked")))
}

/// Starts everything and is the control thread then.
fn control(local: Local, record: Option<&Path>, texts: Texts) -> Result<(), Error> {
    rt::raise_descriptor_limit().map_err(system("raising the limit of descriptors"))?;
    let will = Will::new().map_err(system("making a memfd"))?;
    let mut requests = Requests::open().map_err(system("opening netlink"))?;
    let missing = rights::missing(&mut requests).map_err(system("asking the kernel"))?;
    if !missing.is_empty() {
        return Err(Error::Rights(missing));
    }
    let settings = local.settings.clone();
    let mut warnings = Vec::new();
    let owner = match owner::claim() {
        Ok(owner) => Some(owner),
        Err(other @ NotOwner::Other { .. }) => return Err(Error::Owner(other)),
        Err(why) => {
            warnings.push(why.to_string());
            None
        }
    };
    let mut run_dir = RunDir::new(settings.run_dir.clone());
    let in_run_dir = match run_dir.mend() {
        Err(held @ LockError::Held { .. }) => return Err(Error::Lock(held)),
        made => made,
    };
    let first_look = first_look(&mut requests).map_err(system("reading links and addresses"))?;
    let Some(snapshot) = first_look else { return Ok(()) };
    let node = node_name(&settings, &snapshot)?;
    let store = store_of(&settings, &node)?;
    if let Err(error) = rt::lock_memory() {
        warnings.push(format!("memory is not locked: {error}; paging may delay adverts"));
    }

    // Before the first thread and before anything is active.
    let shown = guard::shown(settings.guard);
    let last_will = will.file().map_err(system("opening the will again"))?;
    let starter = guard::Starter::new(&last_will, settings.realtime, settings.fence)
        .map_err(system("opening the will again"))?;
    let first = settings.guard.then(|| starter.start());

    offload::start().map_err(system("starting the threads for files and names"))?;
    offload::reactor().map_err(system("starting the thread that waits for sockets"))?;

    // Addresses of an earlier run are the node's to find and remove; nobody looks at routes.
    if let Err(error) = remove_routes() {
        warnings.push(format!("on-link routes of an earlier run cannot be removed: {error}"));
    }
    let (ledger, leftovers) = Ledger::open(&settings.run_dir, &snapshot);
    warnings.extend(leftovers.warnings);
    // What a crash left on a kernel without marks is not the box's own.
    let left: BTreeSet<IpAddr> =
        leftovers.places.iter().map(|((_, prefix), _)| prefix.ip).collect();
    let mut routes = DefaultRoutes::watch();
    let gateways = identity::gateways(&mut routes, &snapshot);
    let identity = Identity::of(&snapshot, gateways, &settings.tunnel_interface, &left);
    let mut core = Node::new();
    let (tape, writer) =
        record.map(Tape::open).transpose().map_err(system("making the record"))?.unzip();
    for ((index, prefix), fenced) in leftovers.places {
        core.remember(index, prefix, fenced);
        if let Some(tape) = &tape {
            tape.take(remembered(index, prefix, fenced));
        }
    }

    let (request_sender, request_receiver) = sync_channel(REQUESTS_MAX);
    let (job_sender, job_receiver) = sync_channel(JOBS_MAX);
    // As many answers as jobs: the kernel's thread never waits for the engine.
    let (answer_sender, answer_receiver) = sync_channel(2 * JOBS_MAX);
    let (report_sender, report_receiver) = sync_channel(REPORTS_MAX);
    let (engine_ringer, engine_bell) = channel::bell().map_err(system("making a bell"))?;
    let (kernel_ringer, kernel_bell) = channel::bell().map_err(system("making a bell"))?;
    let (control_ringer, control_bell) = channel::bell().map_err(system("making a bell"))?;
    let notices_lost = Arc::new(AtomicU64::new(0));

    let shown_fence = fence::shown(settings.fence);
    let (ways, fence) = if settings.fence {
        core.fence();
        if let Some(tape) = &tape {
            tape.take(fenced());
        }
        let speaker = control_ringer.another().map_err(system("making a bell"))?;
        let speaker = fence::Speaker::new(report_sender.clone(), speaker, &shown_fence);
        let (ways, fence) =
            fence::start(settings.realtime, speaker).map_err(system("making a fence"))?;
        (Some(ways), Some(fence))
    } else {
        warnings.extend(fence::remove_earlier());
        (None, None)
    };

    let waker = engine_ringer.another().map_err(system("making a bell"))?;
    spawn("kernel", move || {
        let (jobs, answers) = (&job_receiver, &answer_sender);
        kernel::run(requests, ledger, jobs, &kernel_bell, answers, &waker);
    })
    .map_err(system("starting the kernel thread"))?;

    let engine = engine::Wiring {
        bell: engine_bell,
        notifications: Notifications::open(Notifications::RECEIVE_BUFFER)
            .map_err(system("listening to netlink"))?,
        signals: SignalFd::new(&[Signal::Interrupt, Signal::Terminate])
            .map_err(system("opening a signalfd"))?,
        requests: request_receiver,
        jobs: job_sender,
        kernel: kernel_ringer,
        ways,
        answers: answer_receiver,
        reports: report_sender,
        control: control_ringer,
        will,
        tape,
        notices_lost: Arc::clone(&notices_lost),
    };
    let (started_sender, started) = sync_channel(1);
    let (ended_sender, ended) = sync_channel(1);
    let realtime = settings.realtime;
    spawn("engine", move || {
        let result = if realtime { rt::realtime(REALTIME) } else { Ok(()) };
        // Both receivers are there until they have these.
        let _ = started_sender.send(result);
        let result = engine::run(engine, core);
        let is_right = result.is_ok();
        let _ = ended_sender.send(result);
        // What hangs elsewhere is not waited for.
        rt::end_after(LAST_WORDS, is_right);
    })
    .map_err(system("starting the engine"))?;
    if let Ok(Err(error)) = started.recv() {
        warnings.push(format!("no real-time priority ({error}): load may delay adverts"));
    }

    let control = control::Wiring {
        requests: request_sender,
        engine: engine_ringer,
        reports: report_receiver,
        bell: control_bell,
        signals: SignalFd::new(&[Signal::Hangup, Signal::User1, Signal::User2])
            .map_err(system("opening a signalfd"))?,
        texts,
        notices_lost,
        guard: Arc::clone(&shown),
        fence: shown_fence,
        owner,
    };
    log::init(settings.log_level).map_err(system("starting the log's thread"))?;
    ::log::info!("havip {} on node {node}", env!("CARGO_PKG_VERSION"));
    for warning in &warnings {
        ::log::warn!("{warning}");
    }
    static EXECUTOR: Executor<'static> = Executor::new();
    if let Some(first) = first {
        EXECUTOR.spawn(guard::keep(starter, first, shown)).detach();
    }
    let sources = Sources::new(local, node);
    let box_as_it_is = (identity, routes);
    let control = control::Control::new(&EXECUTOR, control, sources, box_as_it_is, warnings);
    smol::block_on(EXECUTOR.run(control.run((run_dir, in_run_dir), store)))
        .map_err(system("running the control thread"))?;
    let engine = ended.recv();
    // The record's end is worth a wait; every address is given up.
    if let Some(writer) = writer {
        let _ = writer.join();
    }
    // So is the end of the fence: it stands as long as an address may.
    if let Some(fence) = fence.filter(|_| matches!(engine, Ok(Ok(true)))) {
        fence.end();
    }
    match engine {
        // All is said and taken away.
        Ok(Ok(true)) => will::disarm(&last_will).map_err(system("disarming the guard"))?,
        Ok(Ok(false)) => ::log::warn!(
            "the kernel does not answer: the guard removes the addresses that are left, or the kernel \
             does at the end of their lifetime"
        ),
        Ok(Err(error)) => return Err(system("running the engine")(error)),
        Err(_) => return panicked("running the engine"),
    }
    Ok(())
}

/// What a node is called whose local file does not say.
///
/// # Errors
/// The kernel's, of uname.
pub fn host_name() -> io::Result<String> {
    match std::env::var("HOSTNAME") {
        Ok(name) if !name.is_empty() => Ok(name),
        Ok(_) | Err(_) => hostname(),
    }
}

/// What is on the box, read anew while it changes too fast for that; `None` when told to end
/// meanwhile.
fn first_look(requests: &mut Requests) -> io::Result<Option<Snapshot>> {
    let mut poll = Poll::new()?;
    let ending = SignalFd::new(&[Signal::Interrupt, Signal::Terminate])?;
    poll.add(&ending, 0)?;
    let mut ready = Vec::new();
    let end = clock::now() + FIRST_LOOK;
    loop {
        match requests.dump() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && clock::now() < end => {}
            result => return result.map(Some),
        }
        poll.wait(Some(clock::now() + FIRST_LOOK_AGAIN), &mut ready)?;
        if !ready.is_empty() {
            return Ok(None);
        }
    }
}

/// The name that this node has in the datastore.
fn node_name(settings: &Settings, snapshot: &Snapshot) -> Result<NodeName, Error> {
    match &settings.node {
        NodeNaming::Name(name) => Ok(name.clone()),
        NodeNaming::Mac(interface) => {
            let mac = snapshot
                .links
                .iter()
                .find(|link| link.name == *interface)
                .and_then(|link| link.mac)
                .ok_or_else(|| {
                    Error::Settings(format!(
                        "[havip] node = \"@mac:{interface}\": there is no such interface with a \
                         MAC address; name another one"
                    ))
                })?;
            NodeName::new(&mac.to_string()).map_err(|why| Error::Settings(why.to_string()))
        }
        NodeNaming::Host => {
            let name = host_name().map_err(system("reading the host's name"))?;
            NodeName::new(&name).map_err(|why| {
                Error::Settings(format!(
                    "the host's name: {why}; set [havip] node in the local file"
                ))
            })
        }
    }
}

/// What to ask the store with; `None` without one.
#[cfg(feature = "etcd")]
fn store_of(settings: &Settings, node: &NodeName) -> Result<Option<access::Access>, Error> {
    access::access(settings, node, None, &access::environment).map_err(Error::Settings)
}

/// A build without a store.
#[cfg(not(feature = "etcd"))]
fn store_of(
    settings: &Settings,
    _node: &NodeName,
) -> Result<Option<std::convert::Infallible>, Error> {
    match settings.etcd_endpoints {
        Some(_) => Err(Error::Settings(
            "[etcd] endpoints: this havip was built without etcd; take one that has it".into(),
        )),
        None => Ok(None),
    }
}
