//! Interfaces that have a master, and masters that are interfaces.

use std::io::Read as _;

use socket2::{Domain, Protocol, Socket, Type};

use super::*;

/// Runs `ip` on a host, once for each line.
fn ip(host: &Host, lines: &[&str]) {
    host.within(|| lines.iter().for_each(|line| shell(&format!("{IPROUTE} {line}"))));
}

/// An IPv4 and an IPv6 router on this interface.
fn both_families(host: &Host, interface: &str, vip: &str, priority: u8) -> String {
    let number = host.number();
    let router = |name: &str, vips: &str| {
        format!(
            "[virtual_router.{name}]\ninterface = \"{interface}\"\nvips = [{vips}]\n\
             advert_interval = 0.5\npriority = {priority}\n"
        )
    };
    format!(
        "[node.gw{number}]\nvrids = [\"51\", \"61\"]\n{}{}",
        router("51", &format!("\"{vip}\"")),
        router("61", "\"fe80::61\", \"2001:db8::61\"")
    )
}

/// What the status shows of both routers, by key.
fn both(daemon: &Daemon, key: &str) -> [Value; 2] {
    let status = daemon.status();
    [0, 1].map(|at| status["vrrp"]["routers"][at][key].clone())
}

fn counts(daemon: &Daemon, name: &str) -> [u64; 2] {
    both(daemon, "counters").map(|counters| counters[name].as_u64().unwrap())
}

#[track_caller]
fn wait_both(daemon: &Daemon, state: &str) {
    let came = lab::holds_within(lab::LIMIT, || both(daemon, "state") == [state, state]);
    assert!(came, "not {state}: {:#}", daemon.status());
}

/// Both routers are backup, hear more, and stay it.
#[track_caller]
fn wait_both_hear(daemon: &Daemon) {
    wait_both(daemon, "backup");
    let [heard, active] = ["adverts_received", "master_transitions"].map(|n| counts(daemon, n));
    wait("both hear their peer", || {
        let now = counts(daemon, "adverts_received");
        now.iter().zip(&heard).all(|(now, before)| *now > before + 3)
    });
    assert_eq!(counts(daemon, "master_transitions"), active);
}

on_its_own_kernel! {
    fn a_port_of_a_bond_a_team_or_openvswitch_takes_no_part() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let first = a.daemon(&both_families(&a, "eth0", VIP, 150));
        wait_both(&first, "active");
        let second = b.daemon(&both_families(&b, "eth0", VIP, 100));
        wait_both_hear(&second);
        let linked = |kind: &str, host: &Host| {
            let add = format!("link add m0 type {kind}");
            // Either takes but ports that are down, and sets them up itself.
            let take = ["link set eth0 down", "link set eth0 master m0", "link set m0 up"];
            ip(host, &[add.as_str()]);
            ip(host, &take);
        };
        let switch = |host: &Host, change: fn(OpenVswitch)| {
            host.within(|| change(OpenVswitch::new("m0")));
        };
        let release = |host: &Host| ip(host, &["link set eth0 nomaster", "link set eth0 up"]);
        let delete = |host: &Host| ip(host, &["link del m0"]);
        type Act<'a> = &'a dyn Fn(&Host);
        let masters: [(&str, [Act<'_>; 3]); 3] = [
            ("bond", [&|host| linked("bond mode active-backup miimon 50", host), &release, &delete]),
            ("team", [&|host| linked("team", host), &release, &delete]),
            (
                "Open vSwitch",
                [
                    &|host| switch(host, |mut switch| switch.add_port("eth0")),
                    &|host| switch(host, |mut switch| switch.delete_port("eth0")),
                    &|host| switch(host, OpenVswitch::delete),
                ],
            ),
        ];
        for (kind, [take, release, delete]) in masters {
            eprintln!("{kind}");
            let why = format!("eth0 is a port of {kind} m0");
            let says_why = |daemon: &Daemon| {
                both(daemon, "not_ready").iter().all(|said| said.to_string().contains(&why))
            };
            take(&b);
            wait("the backup says why", || says_why(&second));
            assert_eq!(both(&second, "state"), ["initialize", "initialize"]);
            assert_eq!(second.check().0, Some(4));
            release(&b);
            wait_both_hear(&second);
            delete(&b);

            take(&a);
            wait("the active says why", || says_why(&first));
            wait_both(&second, "active");
            wait("the VIP moved", || !a.has(VIP) && b.has(VIP));
            // By its master's end.
            delete(&a);
            ip(&a, &["link set eth0 up"]);
            wait_both(&first, "active");
            wait_both_hear(&second);
            wait("the VIP is back", || a.has(VIP) && !b.has(VIP));
        }
    }
}

/// The routes of havip's own in a table, of both families, as iproute2 shows them.
fn own_routes(host: &Host, table: &str) -> Vec<(String, u64)> {
    let shown = |family: &str| {
        let arguments = ["-j", family, "route", "show", "table", table, "proto", "72"];
        let output = host.within(|| Command::new(IPROUTE).args(arguments).output().unwrap());
        serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default()
    };
    let of = |value: Value| {
        let all = value.as_array().cloned().unwrap_or_default();
        all.into_iter().map(|route| {
            let network = route["dst"].as_str().unwrap().to_owned();
            (network, route["metric"].as_u64().unwrap())
        })
    };
    of(shown("-4")).chain(of(shown("-6"))).collect()
}

on_its_own_kernel! {
    fn a_member_of_a_vrf_takes_part_with_its_routes_in_the_vrfs_table() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        for host in [&a, &b] {
            ip(host, &["link add red type vrf table 100", "link set red up"]);
            ip(host, &["link add blue type vrf table 200", "link set blue up"]);
            ip(host, &["link set eth0 master red"]);
        }
        let config = |host: &Host, priority| {
            both_families(host, "eth0", "192.0.2.100/24", priority)
                .replace("2001:db8::61", "2001:db8::61/64")
        };
        let mut first = a.daemon(&config(&a, 150));
        wait_both(&first, "active");
        let mut second = b.daemon(&config(&b, 100));
        wait_both_hear(&second);
        let routes = [("192.0.2.0/24", 18_432), ("2001:db8::/64", 18_432)];
        let routes = routes.map(|(network, metric)| (network.to_owned(), metric));
        wait("the routes are the VRF's", || own_routes(&a, "100") == routes);
        assert!(own_routes(&a, "main").is_empty());
        assert!(own_routes(&b, "100").is_empty());

        // Of the backup, out and in.
        ip(&b, &["link set eth0 nomaster"]);
        wait_both_hear(&second);
        ip(&b, &["link set eth0 master red"]);
        wait_both_hear(&second);
        // And of the active one, whose routes follow it.
        for (change, table) in [
            ("set eth0 nomaster", "main"),
            ("set eth0 master red", "100"),
            ("set eth0 master blue", "200"),
            ("del blue", "main"),
            ("set eth0 master red", "100"),
        ] {
            ip(&a, &[&format!("link {change}")]);
            wait_both(&first, "active");
            wait("the routes are there alone", || {
                let right = |other| own_routes(&a, other).is_empty() != (other == table);
                ["main", "100", "200"].into_iter().all(right) && own_routes(&a, table) == routes
            });
        }
        wait_both_hear(&second);

        assert!(first.stop().success());
        assert!(!a.has(VIP) && !a.has("2001:db8::61"));
        assert!(own_routes(&a, "100").is_empty() && own_routes(&a, "main").is_empty());
        wait_both(&second, "active");
        wait("the routes came with the VIP", || own_routes(&b, "100") == routes);
        second.kill();
        wait("the guard removes all", || {
            !b.has(VIP) && !b.has("2001:db8::61") && own_routes(&b, "100").is_empty()
        });
    }
}

on_its_own_kernel! {
    fn a_bond_whose_active_port_changes_loses_nothing() {
        // Its MAC address stays or is that of the active port.
        for (at, follows) in [false, true].into_iter().enumerate() {
            bond_loses_nothing(&mut Lan::named(&format!("br{at}")), follows);
        }
    }
}

/// The bond's active port.
fn active_port(host: &Host) -> String {
    let arguments = ["-j", "-d", "link", "show", "bond0"];
    let shown = host.within(|| Command::new(IPROUTE).args(arguments).output().unwrap());
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    shown[0]["linkinfo"]["info_data"]["active_slave"].as_str().unwrap_or_default().to_owned()
}

fn bond_loses_nothing(lan: &mut Lan, mac_follows: bool) {
    let (a, b) = (lan.host(), lan.host());
    let kind = if mac_follows { "fail_over_mac active" } else { "fail_over_mac none" };
    for host in [&a, &b] {
        lan.second_cable(host);
        ip(host, &["addr flush dev eth0", "link set eth0 down"]);
        ip(host, &[&format!("link add bond0 type bond mode active-backup miimon 50 {kind}")]);
        ip(host, &["link set eth0 master bond0", "link set eth1 master bond0"]);
        host.within(|| fs::write("/proc/sys/net/ipv6/conf/bond0/accept_dad", "0").unwrap());
        ip(host, &["link set bond0 up", &format!("addr add {}/24 dev bond0", host.ip())]);
        ip(host, &["link set bond0 type bond active_slave eth0"]);
    }
    let first = a.daemon(&both_families(&a, "bond0", VIP, 150));
    wait_both(&first, "active");
    let second = b.daemon(&both_families(&b, "bond0", VIP, 100));
    wait_both_hear(&second);
    for host in [&a, &b] {
        for port in ["eth1", "eth0"] {
            ip(host, &[&format!("link set bond0 type bond active_slave {port}")]);
            wait("the port changed", || active_port(host) == port);
            wait_both_hear(&second);
        }
        // And by the loss of a cable.
        lan.plug(host, false);
        wait("the port changed", || active_port(host) == "eth1");
        wait_both_hear(&second);
        lan.plug(host, true);
    }
    for daemon in [&first, &second] {
        assert_eq!(counts(daemon, "priority_zero_sent"), [0, 0], "{}", daemon.log());
    }
    assert_eq!(counts(&first, "master_transitions"), [1, 1], "{}", first.log());
    assert_eq!(counts(&second, "master_transitions"), [0, 0], "{}", second.log());
    assert!(a.has(VIP) && !b.has(VIP));
    assert_eq!(first.log().contains("another MAC address"), mac_follows, "{}", first.log());
}

/// A switch of Open vSwitch's kernel module, without the rest of it: its generic netlink alone
/// (linux/openvswitch.h).
struct OpenVswitch {
    name: String,
    socket: Socket,
    index: u32,
}

impl OpenVswitch {
    /// Makes it in the thread's network namespace, or finds the one that is there.
    fn new(name: &str) -> Self {
        let (netlink, generic) = (Domain::from(16), Protocol::from(16));
        let socket = Socket::new(netlink, Type::from(3), Some(generic)).unwrap();
        let mut switch = Self { name: name.to_owned(), socket, index: 0 };
        let mut requests = havip::linux::netlink::Requests::open().unwrap();
        let is_there = |requests: &mut havip::linux::netlink::Requests| {
            requests.dump().unwrap().links.iter().any(|link| link.name.as_str() == name)
        };
        if !is_there(&mut requests) {
            let attributes = [attribute(1, &zero_ended(name)), attribute(2, &[0; 4])];
            switch.request("ovs_datapath", 1, &attributes);
        }
        switch.index = lab::index_of(&mut requests, name).0;
        switch
    }

    fn delete(mut self) {
        let name = attribute(1, &zero_ended(&self.name));
        self.request("ovs_datapath", 2, &[name]);
    }

    fn add_port(&mut self, name: &str) {
        let kind = 1_u32.to_ne_bytes();
        let attributes =
            [attribute(2, &kind), attribute(3, &zero_ended(name)), attribute(5, &[0; 4])];
        self.request("ovs_vport", 1, &attributes);
    }

    fn delete_port(&mut self, name: &str) {
        self.request("ovs_vport", 2, &[attribute(3, &zero_ended(name))]);
    }

    /// A request of one of its families, about this switch.
    fn request(&mut self, family: &str, command: u8, attributes: &[Vec<u8>]) {
        let family = self.family(family);
        let mut body = self.index.to_ne_bytes().to_vec();
        body.extend(attributes.concat());
        let answer = self.ask(family, command, &body);
        // NLMSG_ERROR: the acknowledgement.
        let kind = u16::from_ne_bytes(answer[4..6].try_into().unwrap());
        let error = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
        assert_eq!((kind, error), (2, 0), "{:?}", std::io::Error::from_raw_os_error(-error));
    }

    /// The number of a family: the first attribute but its name.
    fn family(&mut self, name: &str) -> u16 {
        let answer = self.ask(16, 3, &attribute(2, &zero_ended(name)));
        let mut rest = &answer[20..];
        while rest[2..4] != 1_u16.to_ne_bytes() {
            let length = u16::from_ne_bytes(rest[..2].try_into().unwrap());
            rest = &rest[usize::from(length).next_multiple_of(4)..];
        }
        u16::from_ne_bytes(rest[4..6].try_into().unwrap())
    }

    /// Sends a request and gives the first message of the answer.
    fn ask(&mut self, family: u16, command: u8, body: &[u8]) -> Vec<u8> {
        const REQUEST: u16 = 1;
        const ACKNOWLEDGE: u16 = 4;
        // Who asks for a family gets it, and needs no acknowledgement.
        let flags = if family == 16 { REQUEST } else { REQUEST | ACKNOWLEDGE };
        let length = u32::try_from(20 + body.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(family.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend([command, 0, 0, 0]);
        message.extend(body);
        self.socket.send(&message).unwrap();
        let mut answer = vec![0; 16 * 1024];
        let length = self.socket.read(&mut answer).unwrap();
        answer.truncate(length);
        answer
    }
}

fn zero_ended(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
