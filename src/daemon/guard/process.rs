//! The guard itself: waits for the daemon's end, and if that was no clean one says priority 0 for
//! every router that was active and takes the VIPs away. One thread; no allocation once it waits.
//!
//! It outlives what ends the daemon alone: `kill -9`, a crash, the OOM killer. What ends every
//! process at once (a whole cgroup or PID namespace, power) is left to the addresses' lifetime.
//!
//! SIGTERM, SIGINT, SIGHUP and the like are blocked or ignored: who stops a service sends them to
//! all of its processes, and the guard has to be there until the daemon has ended. Then it ends by
//! itself.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::READY;
use crate::daemon::REALTIME;
use crate::daemon::will::{Entries, Reader};
use crate::linux::netlink::{Fence, Remover};
use crate::linux::{AnySender, MAX_SEND, clock, detached, rt, signals};
use crate::node::kernel::Port;

/// Priority 0 is said once more if no more time than this has passed since the first: a packet may
/// be lost. Later, the successor has taken over, and a word of the dead would only disturb.
const AGAIN: Duration = Duration::from_millis(50);
/// How often what is there is looked at: until nothing of ours is, which a second look shows.
const LOOKS_MAX: usize = 4;

/// Why this process is no guard.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It was not started by a daemon.
    ByHand,
    /// It cannot do its work; the daemon was told.
    Failed(io::Error),
}

/// What it needs when the time has come.
struct Guard {
    will: Reader,
    sender: AnySender,
    remover: Remover,
    fence: Option<Fence>,
}

/// Guards the process `daemon`, which has started this one; returns when that has ended and all is
/// done.
///
/// # Errors
/// It was started by hand, or cannot have what it needs.
pub(crate) fn run(daemon: u32, realtime: bool, fence: bool) -> Result<(), Refused> {
    // First of all: who sends a signal to all that is called havip means the daemon.
    let blocked = signals::block();
    // What else the daemon's own starter left open. Before Linux 5.9 it stays.
    let _ = detached::close_from(3);
    // Standard output is the will, and only to be read: nothing may be printed here.
    let link = duplicate(io::stdin()).map(UnixStream::from);
    let will = duplicate(io::stdout()).and_then(|fd| Reader::new(File::from(fd)));
    let (Ok(mut link), Ok(will)) = (link, will) else { return Err(Refused::ByHand) };
    if link.peer_addr().is_err() {
        return Err(Refused::ByHand);
    }
    match blocked.and_then(|()| prepare(will, daemon, realtime, fence)) {
        Ok((mut guard, process)) => {
            // A daemon that has died already does not hear it, and is answered for none the less.
            let _ = link.write_all(&[READY]);
            let process = process.as_ref().map(AsFd::as_fd);
            // Cannot fail; if it does, better one priority 0 too many than none.
            let _ = detached::wait_for_either(link.as_fd(), process);
            if !guard.will.is_disarmed() {
                guard.act(daemon);
            }
            Ok(())
        }
        Err(error) => {
            let _ = write!(link, "{error}");
            Err(Refused::Failed(error))
        }
    }
}

fn duplicate(stream: impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

/// Takes everything that it will need, and gives up the rest.
fn prepare(
    will: Reader,
    daemon: u32,
    realtime: bool,
    fence: bool,
) -> io::Result<(Guard, Option<OwnedFd>)> {
    // Fails only where it is one already.
    let _ = detached::own_session();
    detached::name(c"havip-guard");
    std::env::set_current_dir("/")?;
    // Both make it faster under load, and it does without.
    if realtime {
        let _ = rt::realtime(REALTIME);
    }
    let _ = rt::lock_memory();
    let (sender, remover) = (AnySender::open()?, Remover::open()?);
    // Where there can be none, there is none to remove.
    let fence = fence.then(Fence::open).and_then(Result::ok);
    let mut guard = Guard { will, sender, remover, fence };
    // Before Linux 5.3 there is none, and the pair of sockets says the same.
    let process = detached::parent(daemon).ok();
    detached::keep_net_admin()?;
    // A rehearsal, which sends and removes nothing: what it touches is in memory from now on.
    guard.will.read().for_each(drop);
    guard.remover.find(|_, _| false)?;
    Ok((guard, process))
}

impl Guard {
    fn act(&mut self, daemon: u32) {
        let Self { will, sender, remover, fence } = self;
        let entries = will.read();
        let packets = say(sender, entries);
        let said = clock::now();
        let mut addresses = 0;
        let mut trouble = None;
        for _ in 0..LOOKS_MAX {
            let named = |index, prefix: &_| entries.clone().any(|entry| entry.names(index, prefix));
            match remover.find(named).and_then(|count| remover.remove().map(|()| count)) {
                Ok(0) => break,
                // Once more: who changed addresses meanwhile may have hidden some from the dump.
                Ok(count) => addresses = addresses.max(count),
                Err(error) => trouble = Some(error),
            }
        }
        if clock::now().since(said) < AGAIN {
            say(sender, entries);
        }
        for entry in entries {
            for vip in entry.addresses() {
                remover.unroute(entry.port.index, entry.table, vip);
            }
        }
        // Without the addresses it is nothing but rules that nobody needs.
        if let Some(fence) = fence
            && trouble.is_none()
        {
            let _ = fence.remove();
        }
        report(format_args!(
            "havip guard: process {daemon} died: {packets} adverts with priority 0 sent, \
             {addresses} addresses taken away"
        ));
        if let Some(error) = trouble {
            report(format_args!("havip guard: addresses are left to their lifetime: {error}"));
        }
    }
}

/// Sends all packets, in batches of those that follow one another through one interface. Gives how
/// many went; one that cannot go keeps none of the others.
fn say(sender: &AnySender, entries: Entries<'_>) -> usize {
    let mut batch: [&[u8]; MAX_SEND] = [&[]; MAX_SEND];
    let mut filled = 0;
    let mut sent = 0;
    let mut port = None;
    for entry in entries {
        if port.is_some_and(|port| port != entry.port) || filled == MAX_SEND {
            sent += send(sender, port, batch.get(..filled).unwrap_or_default());
            filled = 0;
        }
        port = Some(entry.port);
        if let Some(slot) = batch.get_mut(filled) {
            *slot = entry.packet;
            filled += 1;
        }
    }
    sent + send(sender, port, batch.get(..filled).unwrap_or_default())
}

fn send(sender: &AnySender, port: Option<Port>, mut packets: &[&[u8]]) -> usize {
    let Some(port) = port else { return 0 };
    let mut sent = 0;
    while !packets.is_empty() {
        let (went, error) = sender.send_batch(port, packets);
        sent += went;
        // The one that failed is passed over.
        let done = went + usize::from(error.is_some());
        packets = packets.get(done.max(1)..).unwrap_or_default();
    }
    sent
}

/// A line to standard error, without allocating.
fn report(line: fmt::Arguments<'_>) {
    let mut bytes = [0; 256];
    let mut rest = &mut bytes[..];
    let _ = writeln!(rest, "{line}");
    let length = 256 - rest.len();
    let _ = io::stderr().write_all(bytes.get(..length).unwrap_or_default());
}
