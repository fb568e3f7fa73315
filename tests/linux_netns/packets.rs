//! Adverts and frames between two network namespaces.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::Command;

use havip::linux::netlink::{Notifications, Requests};
use havip::linux::{
    AnySender, Heard, MAX_SEND, PacketSocket, Received, RecvBatch, VrrpSocket, Witness, clock,
    wait_readable,
};
use havip::node::kernel::{Change, Errno, Port};
use havip::wire::vrrp::{RxMeta, Vrid};
use havip::wire::{Family, arp};

use crate::{LIMIT, Wire, changes_until, ip, link, name, put, skip};

/// An IP packet of protocol 112 from `source` to the group.
fn packet(source: IpAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut bytes = Vec::new();
    match source {
        IpAddr::V4(source) => {
            bytes.extend([0x45, 0xc0]);
            bytes.extend((length + 20).to_be_bytes());
            bytes.extend([0, 0, 0, 0, 255, 112, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend([224, 0, 0, 18]);
        }
        IpAddr::V6(source) => {
            bytes.extend([0x6c, 0, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([112, 255]);
            bytes.extend(source.octets());
            bytes.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12]);
        }
    }
    bytes.extend(payload);
    bytes
}

/// Reads packets on `socket` until `count` have come, and hands each to `each`.
fn receive(socket: &VrrpSocket, count: usize, mut each: impl FnMut(Received<'_>)) {
    let mut batch = RecvBatch::new();
    let mut seen = 0;
    while seen < count {
        assert!(wait_readable(socket, LIMIT).unwrap(), "{seen} of {count} packets came");
        seen += socket.recv_batch(&mut batch).unwrap();
        batch.packets().for_each(&mut each);
    }
    assert_eq!(seen, count);
}

isolated!(
    fn adverts_go_from_one_end_to_the_other_and_to_nobody_else() {
        let wire = Wire::new();
        for (family, source, group) in [
            (Family::V4, ip("10.9.0.2"), ip("224.0.0.18")),
            (Family::V6, ip("fe80::2"), ip("ff02::12")),
        ] {
            let (near, far) = wire.sockets(family);
            let (_, bystander) = wire.sockets(family);
            let payloads: Vec<[u8; 8]> = (0..40u8).map(|n| [n; 8]).collect();
            let packets: Vec<Vec<u8>> = payloads.iter().map(|p| packet(source, p)).collect();
            assert_eq!(far.send_batch(&packets), (40, None));
            let mut got = Vec::new();
            receive(&near, 40, |received| {
                assert!(!received.truncated);
                let payload = match family {
                    Family::V4 => {
                        let (header, payload) = received.bytes.split_at(20);
                        assert_eq!(header[8], 255);
                        assert_eq!(header[12..], packets[0][12..20]);
                        payload
                    }
                    Family::V6 => {
                        let meta = RxMeta { src: source, dst: group, ttl: 255 };
                        assert_eq!(received.meta, Some(meta));
                        received.bytes
                    }
                };
                got.push(<[u8; 8]>::try_from(payload).unwrap());
            });
            assert_eq!(got, payloads);
            let mut batch = RecvBatch::new();
            for own in [&far, &bystander] {
                assert_eq!(own.recv_batch(&mut batch).unwrap(), 0, "heard its own host");
                assert_eq!(batch.packets().count(), 0);
            }
        }
    }
);

isolated!(
    fn one_call_sends_at_most_sixty_four_and_stops_at_the_first_that_fails() {
        let wire = Wire::new();
        let (near, _) = wire.sockets(Family::V4);
        let mut packets = vec![packet(ip("10.9.0.1"), &[1; 8]); 100];
        assert_eq!(near.send_batch(&packets), (MAX_SEND, None));
        packets[5] = packet(ip("10.9.0.1"), &[1; 1600]);
        assert_eq!(near.send_batch(&packets), (5, Some(Errno(libc::EMSGSIZE))));
        assert_eq!(near.send_batch::<Vec<u8>>([]), (0, None));
    }
);

isolated!(
    fn a_packet_beyond_the_buffer_is_marked() {
        let wire = Wire::new();
        let jumbo = |dev| {
            let args = ["link", "set", "mtu", "9000", "dev", dev];
            Command::new("ip").args(args).status().is_ok_and(|s| s.success())
        };
        if !jumbo("near") || !wire.away(|| jumbo("far")) {
            return skip("a_packet_beyond_the_buffer_is_marked", "needs iproute2");
        }
        let (near, far) = wire.sockets(Family::V6);
        // The lengths at which one part of the buffer ends and the other begins are among them.
        let payloads = [256, 257, 4088, 4104].map(|length| {
            (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<u8>>()
        });
        let packets = payloads.each_ref().map(|payload| packet(ip("fe80::2"), payload));
        assert_eq!(far.send_batch(&packets), (4, None));
        let mut seen = Vec::new();
        receive(&near, 4, |received| seen.push((received.bytes.to_vec(), received.truncated)));
        let [a, b, c, mut d] = payloads;
        d.truncate(4096);
        assert_eq!(seen, [(a, false), (b, false), (c, false), (d, true)]);
    }
);

isolated!(
    fn a_packet_for_the_group_or_for_the_host_is_heard_and_one_for_another_group_is_not() {
        let wire = Wire::new();
        let (near, _) = wire.sockets(Family::V4);
        let socket = wire.away(PacketSocket::open).unwrap();
        let frame = |mac: [u8; 6], destination: [u8; 4], mark: u8| {
            let mut packet = packet(ip("10.9.0.2"), &[mark; 8]);
            packet[16..20].copy_from_slice(&destination);
            let words = packet[..20].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
            let sum: u32 = words.sum();
            let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            let mut frame = mac.to_vec();
            frame.extend(wire.far.mac.unwrap().0);
            frame.extend([8, 0]);
            frame.extend(packet);
            frame
        };
        let frames = [
            frame(wire.near.mac.unwrap().0, [10, 9, 0, 1], 1),
            frame([1, 0, 0x5e, 0, 0, 1], [224, 0, 0, 1], 2),
            frame([1, 0, 0x5e, 0, 0, 18], [224, 0, 0, 18], 3),
        ];
        assert_eq!(socket.send_batch(wire.far.index, &frames), (3, None));
        let mut marks = Vec::new();
        receive(&near, 2, |received| marks.push(received.bytes[20]));
        assert_eq!(marks, [1, 3]);
        assert_eq!(near.recv_batch(&mut RecvBatch::new()).unwrap(), 0);

        let (near, _) = wire.sockets(Family::V6);
        let frame = |mac: [u8; 6], destination: &str, mark: u8| {
            let mut packet = packet(ip("fe80::2"), &[mark; 8]);
            let destination: Ipv6Addr = destination.parse().unwrap();
            packet[24..40].copy_from_slice(&destination.octets());
            [&mac[..], &wire.far.mac.unwrap().0, &[0x86, 0xdd], &packet].concat()
        };
        let frames = [
            frame(wire.near.mac.unwrap().0, "fe80::1", 1),
            frame([0x33, 0x33, 0, 0, 0, 1], "ff02::1", 2),
            frame([0x33, 0x33, 0, 0, 0, 0x12], "ff02::12", 3),
        ];
        assert_eq!(socket.send_batch(wire.far.index, &frames), (3, None));
        let mut heard = Vec::new();
        receive(&near, 2, |received| {
            heard.push((received.bytes[0], received.meta.unwrap().dst));
        });
        assert_eq!(heard, [(1, ip("fe80::1")), (3, ip("ff02::12"))]);
        assert_eq!(near.recv_batch(&mut RecvBatch::new()).unwrap(), 0);
    }
);

/// Everything that a witness hears until the address `last` is claimed, that claim left out.
fn heard_until(witness: &Witness, last: &str) -> Vec<Heard> {
    let mut all = Vec::new();
    loop {
        assert!(wait_readable(witness, LIMIT).unwrap(), "nothing more came after {all:?}");
        while let Some(heard) = witness.read() {
            match heard {
                Some(Heard::Claim(of, _)) if of == ip(last) => return all,
                other => all.extend(other),
            }
        }
    }
}

/// A frame with an 802.1Q tag: priority 5, and this VLAN.
fn tagged(frame: &[u8], vlan: u8) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0xa0, vlan], &frame[12..]].concat()
}

isolated!(
    fn over_ipv4_the_ip_layer_keeps_back_what_comes_from_an_own_address_and_a_witness_hears_it() {
        let wire = Wire::new();
        let (near, far) = wire.sockets(Family::V4);
        let port = Port { index: wire.near.index, family: Family::V4 };
        let witness = Witness::open(port).unwrap();
        let frames = wire.away(PacketSocket::open).unwrap();
        let mac = wire.far.mac.unwrap();
        let watched = [ip("10.9.0.99")];
        let mark = |witness: &Witness| {
            let IpAddr::V4(last) = watched[0] else { unreachable!("it is one") };
            let mut claim = Vec::new();
            arp::gratuitous(mac, last, &mut claim);
            assert_eq!(frames.send_batch(wire.far.index, &[claim]), (1, None));
            heard_until(witness, "10.9.0.99")
        };
        // As the other end's own, and as ours.
        let theirs = packet(ip("10.9.0.2"), &[0x31, 51, 3, 3, 3, 3, 3, 3]);
        let ours = packet(ip("10.9.0.1"), &[0x31, 51, 4, 4, 4, 4, 4, 4]);
        let others = packet(ip("10.9.0.1"), &[0x31, 52, 5, 5, 5, 5, 5, 5]);
        let mut optional = ours.clone();
        optional[0] += 1;
        optional[3] += 4;
        optional.splice(20..20, [0x94, 4, 0, 0]);
        for (vrids, expected) in [
            (&[][..], &[][..]),
            (&[Vrid::new(51).unwrap()], &[3, 4, 4]),
            (&[Vrid::new(7).unwrap(), Vrid::new(52).unwrap()], &[5]),
            (&[], &[]),
        ] {
            witness.watch(&watched, vrids).unwrap();
            assert_eq!(far.send_batch([&theirs, &ours, &others, &optional]), (4, None));
            let heard: Vec<u8> = mark(&witness)
                .into_iter()
                .map(|heard| match heard {
                    Heard::Packet(from, bytes) if from == mac => *bytes.last().unwrap(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(heard, expected, "{vrids:?}");
            receive(&near, 1, |received| assert_eq!(received.bytes[22..], [3; 6]));
            // What this end sends itself is nobody else's.
            assert_eq!(near.send_batch([&ours]), (1, None));
            receive(&far, 1, |_| {});
        }
        assert_eq!(near.recv_batch(&mut RecvBatch::new()).unwrap(), 0);
    }
);

isolated!(
    fn over_ipv6_the_ip_layer_delivers_what_comes_from_an_own_address() {
        let wire = Wire::new();
        let mut requests = Requests::open().unwrap();
        let own = havip::config::Prefix::host(ip("fe80::2"));
        let verb = havip::node::kernel::Verb::Add { lifetime: Some(600) };
        let op = havip::node::kernel::Op { index: wire.near.index, prefix: own, verb };
        assert_eq!(requests.apply(&[op]).unwrap(), [Ok(())]);
        let (near, far) = wire.sockets(Family::V6);
        assert_eq!(far.send_batch(&[packet(ip("fe80::2"), &[6; 8])]), (1, None));
        receive(&near, 1, |received| assert_eq!(received.meta.unwrap().src, ip("fe80::2")));
    }
);

isolated!(
    fn a_witness_hears_its_own_vlan_alone() {
        let wire = Wire::new();
        let port = Port { index: wire.near.index, family: Family::V4 };
        let witness = Witness::open(port).unwrap();
        let frames = wire.away(PacketSocket::open).unwrap();
        let mac = wire.far.mac.unwrap();
        let arp = |last: u8| {
            let mut frame = Vec::new();
            arp::gratuitous(mac, [10, 9, 0, last].into(), &mut frame);
            frame
        };
        let advert = [
            &[1, 0, 0x5e, 0, 0, 18][..],
            &mac.0,
            &[8, 0],
            &packet(ip("10.9.0.1"), &[0x31, 51, 1, 1, 1, 1, 1, 1]),
        ]
        .concat();
        for vrids in [&[][..], &[Vrid::new(51).unwrap()]] {
            let watched: Vec<IpAddr> = (50..60).map(|last| [10, 9, 0, last].into()).collect();
            witness.watch(&watched, vrids).unwrap();
            let sent = [
                tagged(&arp(51), 100),
                tagged(&advert, 100),
                // A priority, and no VLAN.
                tagged(&arp(52), 0),
                arp(59),
            ];
            assert_eq!(frames.send_batch(wire.far.index, &sent), (4, None));
            let heard = heard_until(&witness, "10.9.0.59");
            assert_eq!(heard, [Heard::Claim(ip("10.9.0.52"), mac)], "{vrids:?}");
        }
    }
);

isolated!(
    fn nothing_piles_up_in_a_socket_that_only_sends() {
        let wire = Wire::new();
        for (family, source, protocol_at, file) in [
            (Family::V4, ip("10.9.0.2"), 9, "/proc/thread-self/net/raw"),
            (Family::V6, ip("fe80::2"), 6, "/proc/thread-self/net/raw6"),
        ] {
            let (near, far) = wire.sockets(family);
            let _unbound = AnySender::open().unwrap();
            // Protocol 255 is what a socket of IPPROTO_RAW hears.
            let mut packets = vec![packet(source, &[7; 8]); 32];
            packets[..16].iter_mut().for_each(|packet| packet[protocol_at] = 255);
            assert_eq!(far.send_batch(&packets), (32, None));
            assert!(wait_readable(&near, LIMIT).unwrap());
            let table = fs::read_to_string(file).unwrap();
            let mut queues: Vec<(&str, bool)> = Vec::new();
            for line in table.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (_, protocol) = fields[1].rsplit_once(':').unwrap();
                let (_, queued) = fields[4].split_once(':').unwrap();
                queues.push((protocol, u64::from_str_radix(queued, 16).unwrap() > 0));
            }
            queues.sort_unstable();
            assert_eq!(queues, [("0070", true), ("00FF", false)], "{table}");
        }
        let _quiet = PacketSocket::open().unwrap();
        let table = fs::read_to_string("/proc/thread-self/net/packet").unwrap();
        let fields: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        // Proto and Rmem.
        assert_eq!((fields[3], fields[6]), ("0000", "0"), "{table}");
    }
);

isolated!(
    fn a_gratuitous_arp_teaches_the_other_end() {
        let wire = Wire::new();
        wire.away(|| fs::write("/proc/sys/net/ipv4/conf/far/arp_accept", "1")).unwrap();
        let socket = PacketSocket::open().unwrap();
        let mac = wire.near.mac.unwrap();
        let mut frame = Vec::new();
        arp::gratuitous(mac, [10, 9, 0, 77].into(), &mut frame);
        assert_eq!(socket.send_batch(wire.near.index, &[frame]), (1, None));
        let learned = wire.away(|| {
            // The frame is worked on at the other end in its own time.
            let end = clock::now() + LIMIT;
            loop {
                let table = fs::read_to_string("/proc/thread-self/net/arp").unwrap();
                if let Some(line) = table.lines().find(|line| line.starts_with("10.9.0.77 ")) {
                    return line.to_owned();
                }
                assert!(clock::now() < end, "not learned: {table}");
                std::thread::yield_now();
            }
        });
        assert!(learned.contains(&mac.to_string()), "{learned}");
    }
);

isolated!(
    fn an_interface_made_anew_has_another_index_and_the_old_sockets_fail() {
        let mut requests = Requests::open().unwrap();
        let mut notifications = Notifications::open(Notifications::RECEIVE_BUFFER).unwrap();
        let wire = Wire::new();
        let old = wire.near.index;
        let open = |family| VrrpSocket::open(Port { index: old, family });
        let sockets = [Family::V4, Family::V6].map(|family| open(family).unwrap());
        let frames = PacketSocket::open().unwrap();
        requests.delete_link(old).unwrap();
        changes_until(&mut notifications, |c| c.contains(&Change::LinkGone(old)));
        requests.add_veth(&name("near"), &name("far"), Some(wire.away.as_fd())).unwrap();
        let new = link(&requests.dump().unwrap(), "near").index;
        assert_ne!(new, old);
        for (socket, source) in sockets.iter().zip([ip("10.9.0.1"), ip("fe80::1")]) {
            let (sent, errno) = socket.send_batch(&[packet(source, &[0; 8])]);
            assert_eq!(sent, 0);
            let gone = [libc::ENODEV, libc::ENXIO, libc::ENETUNREACH, libc::EADDRNOTAVAIL];
            assert!(errno.is_some_and(|Errno(e)| gone.contains(&e)), "{errno:?}");
            assert_eq!(socket.recv_batch(&mut RecvBatch::new()).unwrap(), 0);
        }
        let (sent, errno) = frames.send_batch(old, &[[0; 60]]);
        assert_eq!((sent, errno), (0, Some(Errno(libc::ENXIO))));
        assert!(open(Family::V4).is_err());
        assert!(open(Family::V6).is_err());
        let witness = Witness::open(Port { index: old, family: Family::V4 });
        assert!(witness.is_err());
        let answer = requests.apply(&[put(old, "10.0.0.3", Some(5))]).unwrap();
        assert_eq!(answer, [Err(Errno(libc::ENODEV))]);
    }
);

isolated!(
    fn an_interface_that_was_down_carries_adverts_again_when_it_is_up() {
        let wire = Wire::new();
        let mut requests = Requests::open().unwrap();
        let (near, far) = wire.sockets(Family::V4);
        let there = [packet(ip("10.9.0.1"), &[1; 8])];
        let back = [packet(ip("10.9.0.2"), &[2; 8])];
        requests.set_up(wire.near.index, false).unwrap();
        let (sent, errno) = near.send_batch(&there);
        assert!(sent == 0 && errno.is_some(), "{sent} {errno:?}");
        requests.set_up(wire.near.index, true).unwrap();
        assert_eq!(near.send_batch(&there), (1, None));
        receive(&far, 1, |received| assert_eq!(received.bytes[20..], [1; 8]));
        // The membership has come back by itself.
        assert_eq!(far.send_batch(&back), (1, None));
        receive(&near, 1, |received| assert_eq!(received.bytes[20..], [2; 8]));
    }
);
