//! What adverts alone take: as many of them, of the same size and in the same bursts, sent and read by
//! two threads that do nothing else. A yardstick, not a limit: who reads less often may take less.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use havip::config::Prefix;
use havip::linux::netlink::Requests;
use havip::linux::{MAX_SEND, Poll, RecvBatch, VrrpSocket, clock, rt};
use havip::node::Instant;
use havip::node::kernel::Port;
use havip::wire::Family;
use havip::wire::vrrp::{AdvertSpec, Auth, Centis, SumForm, Version, Vrid};

use crate::gateway::{PER_INTERFACE, vip};
use crate::lab::{Host, index_of, ip};
use crate::measure::{cpu_of, pin_this_thread};

/// Until both are ready.
const START: Duration = Duration::from_secs(1);

struct Adverts {
    routers: usize,
    interval: Duration,
    begin: Instant,
    end: Instant,
}

impl Adverts {
    /// Those of each interface.
    fn interfaces(&self) -> impl Iterator<Item = (String, usize)> {
        (0..self.routers.div_ceil(PER_INTERFACE)).map(|at| {
            let rest = self.routers - at * PER_INTERFACE;
            (format!("eth{at}"), rest.min(PER_INTERFACE))
        })
    }

    /// A socket for each, in the calling thread's network namespace.
    fn sockets(&self) -> Vec<VrrpSocket> {
        let mut requests = Requests::open().expect("it is ours");
        let mut open = |(name, _): (String, usize)| {
            let index = index_of(&mut requests, &name);
            VrrpSocket::open(Port { index, family: Family::V4 }).expect("this needs root")
        };
        self.interfaces().map(&mut open).collect()
    }

    /// What a thread took, in seconds a minute, from the begin to the end of what it does.
    fn measured(&self, work: impl FnOnce()) -> f64 {
        let taken = || cpu_of(Path::new("/proc/thread-self"));
        let before = taken();
        work();
        (taken() - before) as f64 / 1e9 * 60.0 / self.end.since(self.begin).as_secs_f64()
    }

    /// Sends; returns how many went, and what that took.
    fn send(&self) -> (usize, f64) {
        let sockets = self.sockets();
        // By their time within an interval: the routers of an interface in equal bursts.
        let mut plan = Vec::new();
        for (at, (_, routers)) in self.interfaces().enumerate() {
            let source: IpAddr = match u8::try_from(at).expect("a few") {
                0 => ip("192.0.2.1"),
                cable => [198, 18, cable, 1].into(),
            };
            let packets: Vec<Vec<u8>> = (0..routers).map(|router| advert(router, source)).collect();
            let bursts = u32::try_from(routers.div_ceil(MAX_SEND)).expect("a few");
            for (number, burst) in (0..).zip(packets.chunks(MAX_SEND)) {
                plan.push((self.interval * number / bursts, at, burst.to_vec()));
            }
        }
        plan.sort_by_key(|(offset, at, _)| (*offset, *at));
        let mut poll = Poll::new().expect("there are descriptors");
        let (mut ready, mut sent) = (Vec::new(), 0);
        let taken = self.measured(|| {
            let mut begin = self.begin;
            while begin < self.end {
                for (offset, at, burst) in &plan {
                    let due = begin + *offset;
                    if clock::now() < due {
                        poll.wait(Some(due), &mut ready).expect("it waits");
                    }
                    sent += sockets[*at].send_batch(burst).0;
                }
                begin = begin + self.interval;
            }
        });
        (sent, taken)
    }

    /// Reads; returns how many came, and what that took.
    fn read(&self) -> (usize, f64) {
        let sockets = self.sockets();
        let mut poll = Poll::new().expect("there are descriptors");
        for (key, socket) in sockets.iter().enumerate() {
            poll.add(socket, key).expect("there is memory");
        }
        let mut batch = RecvBatch::new();
        let (mut ready, mut read) = (Vec::new(), 0);
        let end = self.end + self.interval;
        let taken = self.measured(|| {
            while clock::now() < end {
                poll.wait(Some(end), &mut ready).expect("it waits");
                for key in &ready {
                    loop {
                        read += sockets[*key].recv_batch(&mut batch).expect("the link is up");
                        if !batch.is_full() {
                            break;
                        }
                    }
                }
            }
        });
        (read, taken)
    }
}

fn advert(router: usize, source: IpAddr) -> Vec<u8> {
    let vrid = u8::try_from(router + 1).expect("PER_INTERFACE is below 256");
    let spec = AdvertSpec {
        version: Version::V3,
        vrid: Vrid::new(vrid).expect("not 0"),
        priority: 200,
        interval: Centis(10),
        auth: Auth::None,
        addresses: &[Prefix::host(ip(&vip(router))).ip],
        sum: SumForm::PseudoHeader,
    };
    let mut packet = Vec::new();
    spec.emit_packet(source, &mut packet);
    packet
}

/// CPU seconds a minute of who sends and of who reads, on a processor each, at a real-time priority
/// as havip's.
pub(crate) fn bare(hosts: [&Host; 2], routers: usize, interval: &str, seconds: u64) -> [f64; 2] {
    let interval = interval.parse().map(Duration::from_secs_f64).expect("--interval: seconds");
    let begin = clock::now() + START;
    let adverts = Adverts { routers, interval, begin, end: begin + Duration::from_secs(seconds) };
    let alone = |processor: usize, body: &dyn Fn() -> (usize, f64)| {
        pin_this_thread(processor);
        let _ = rt::realtime(10);
        hosts[processor].within(body)
    };
    let [(sent, sending), (read, reading)] = std::thread::scope(|scope| {
        let sender = scope.spawn(|| alone(0, &|| adverts.send()));
        let reader = scope.spawn(|| alone(1, &|| adverts.read()));
        [sender, reader].map(|thread| thread.join().expect("it says why"))
    });
    assert!(sent > 0 && read > sent * 9 / 10, "{read} of {sent} came");
    [sending, reading]
}
