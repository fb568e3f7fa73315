//! The thread that asks the kernel for things: requests and dumps run under a lock of the whole
//! kernel, and may take as long as a stranger holds it.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::channel::{Bell, Ringer};
use super::ledger::Ledger;
use crate::linux::netlink::Requests;
use crate::linux::{Groups, Membership, PacketSocket, VrrpSocket, Witness, errno, rt};
use crate::node::kernel::{Errno, Op, Port, Snapshot};
use crate::wire::vrrp::Vrid;

/// ENODEV.
const NO_DEVICE: Errno = Errno(19);
/// Threads that close sockets at the end.
const CLOSERS_MAX: usize = 64;
/// Descriptors that are not for interfaces: clients, etcd, files, the next guard.
const DESCRIPTORS_KEPT: u64 = 64;
/// Requests that may wait for this thread.
pub(super) const JOBS_MAX: usize = 64;

/// What the engine wants of the kernel, in order.
#[derive(Debug)]
pub(super) enum Job {
    Dump,
    Apply(Vec<Op>),
    Open(Port),
    /// Make sure of it; in any case, or if the kernel has lost it.
    Join(Membership, bool),
    Watch(Arc<Witness>, Vec<IpAddr>, Vec<Vrid>),
    /// Leaving a group takes the same lock as joining it.
    Close(Box<Sockets>),
}

/// What became of it, in order.
#[derive(Debug)]
pub(super) enum Answer {
    Dumped(Result<Snapshot, Errno>),
    Applied(Vec<Result<(), Errno>>),
    Opened(Port, Result<Box<Sockets>, Errno>),
    /// A request failed half-way: what is known of the kernel is out of date.
    Unknown,
    /// The kernel had lost the membership of these sockets: they are members again.
    Rejoined(Port),
    /// Something else does not work as it should.
    Trouble(String),
}

/// The sockets of one interface and family.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) vrrp: VrrpSocket,
    pub(super) witness: Arc<Witness>,
    /// Sends frames where the witness does not: one for all interfaces.
    pub(super) frames: Arc<PacketSocket>,
}

/// Closes many sockets at the end, where somebody waits for it. For each packet socket the kernel
/// waits tens of milliseconds until nobody can be reading it any more, and for several that are
/// closed at the same time no longer than for one.
pub(super) fn close_all(mut sockets: impl ExactSizeIterator<Item = Box<Sockets>>) {
    let share = sockets.len().div_ceil(CLOSERS_MAX).max(1);
    std::thread::scope(|scope| {
        loop {
            let chunk: Vec<_> = sockets.by_ref().take(share).collect();
            if chunk.is_empty() {
                break;
            }
            let thread = std::thread::Builder::new().name("close".into()).stack_size(super::STACK);
            // Without a thread they are closed here, one after the other.
            let _ = thread.spawn_scoped(scope, move || drop(chunk));
        }
    });
}

/// Works until the engine is gone.
pub(super) fn run(
    mut requests: Requests,
    mut ledger: Ledger,
    jobs: &Receiver<Job>,
    bell: &Bell,
    answers: &SyncSender<Answer>,
    engine: &Ringer,
) {
    let mut queue = VecDeque::new();
    let mut groups = Groups::default();
    let mut frames = None;
    // Once a process: who fails tries again each second.
    let mut told_limit = false;
    loop {
        queue.extend(jobs.try_iter());
        let Some(job) = queue.pop_front() else {
            if bell.wait() {
                continue;
            }
            return;
        };
        let answer = match job {
            Job::Dump => {
                let result = requests.dump();
                if let Ok(snapshot) = &result {
                    ledger.dumped(snapshot);
                }
                Answer::Dumped(result.map_err(|error| errno(&error)))
            }
            Job::Apply(ops) => {
                let before = ledger.before(&ops);
                let results = match requests.apply(&ops) {
                    Ok(results) => results,
                    Err(error) => {
                        // Which of them were done is not known: only a dump tells.
                        if answers.send(Answer::Unknown).is_err() {
                            return;
                        }
                        vec![Err(errno(&error)); ops.len()]
                    }
                };
                let after = ledger.after(&ops, &results);
                if let Err(trouble) = before.and(after)
                    && answers.send(Answer::Trouble(trouble)).is_err()
                {
                    return;
                }
                Answer::Applied(results)
            }
            Job::Open(port) => {
                let sockets = open(port, &mut frames).map_err(|error| errno(&error));
                match &sockets {
                    Err(Errno(libc::EMFILE)) if !told_limit => {
                        told_limit = true;
                        if answers.send(Answer::Trouble(descriptors_wanted())).is_err() {
                            return;
                        }
                    }
                    Ok(_) | Err(_) => {}
                }
                Answer::Opened(port, sockets)
            }
            Job::Join(membership, anew) => {
                let port = membership.port();
                let lost = !anew && !groups.has(port);
                if !anew && !lost {
                    continue;
                }
                match membership.renew() {
                    Err(error) => Answer::Opened(port, Err(errno(&error))),
                    Ok(()) if lost => Answer::Rejoined(port),
                    Ok(()) => continue,
                }
            }
            Job::Watch(witness, addresses, vrids) => match witness.watch(&addresses, &vrids) {
                Ok(()) => continue,
                // Its interface went, and is told of elsewhere.
                Err(error) if errno(&error) == NO_DEVICE => continue,
                Err(error) => Answer::Trouble(format!(
                    "other hosts that have a VIP are not noticed: setting up a packet socket: {error}"
                )),
            },
            Job::Close(sockets) => {
                drop(sockets);
                continue;
            }
        };
        if answers.send(answer).is_err() {
            return;
        }
        engine.ring();
    }
}

/// `shared` is the socket that sends frames for all interfaces, opened with the first.
fn open(port: Port, shared: &mut Option<Arc<PacketSocket>>) -> io::Result<Box<Sockets>> {
    let frames = match shared {
        Some(frames) => Arc::clone(frames),
        None => Arc::clone(shared.insert(Arc::new(PacketSocket::open()?))),
    };
    let vrrp = VrrpSocket::open(port)?;
    let witness = Arc::new(Witness::open(port)?);
    // The kernel gives the lowest number that is free: beyond this there is no room for who asks
    // how it goes.
    let number = u64::try_from(vrrp.as_fd().as_raw_fd()).unwrap_or(0);
    if number >= descriptors_for_ports() {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    Ok(Box::new(Sockets { vrrp, witness, frames }))
}

/// How many of the descriptors interfaces may take; the rest is for control and guard.
fn descriptors_for_ports() -> u64 {
    let limit = rt::descriptor_limit().unwrap_or(u64::MAX);
    limit - limit.div_ceil(4).min(DESCRIPTORS_KEPT)
}

fn descriptors_wanted() -> String {
    let limit = rt::descriptor_limit().unwrap_or(0);
    format!(
        "the limit of open files (RLIMIT_NOFILE) is {limit}, which is too few for all interfaces: \
         raise it (LimitNOFILE=, ulimit -n) and start again; until then some routers do not take \
         part"
    )
}
