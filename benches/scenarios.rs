//! What goes wrong with virtual addresses in the field, done to two gateways of havip and to two of
//! keepalived, and what could be seen of it: on the wire, at the interfaces, from a client.
//!
//!     cargo bench --bench scenarios -- [--only S1,S6]
//!
//! keepalived has the options that suit a scenario best; the table names them. Needs root, and
//! keepalived from `tests/lab/fetch`. Prints a table in Markdown, the one of docs/scenarios.md.

#[path = "scenarios/bed.rs"]
mod bed;
#[path = "measure/gateway.rs"]
mod gateway;
#[path = "../tests/lab/mod.rs"]
mod lab;
mod measure;

use std::net::IpAddr;
use std::process::Command;

use bed::{Bed, Setup, VIP, VIP6, seconds};
use gateway::has_keepalived;
use havip::config::Prefix;
use havip::linux::netlink::Requests;
use havip::linux::{clock, netns};
use havip::node::kernel::{Op, Verb};
use lab::{Host, holds_within, index_of, wait};
use measure::table::Table;
use measure::{Arguments, pass};

struct Scenario {
    name: &'static str,
    expected: &'static str,
    /// Of keepalived, beyond what it always has here.
    options: &'static str,
    play: fn(&mut Bed) -> String,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "S1 the active gateway stands still for 2 s, 0.1 s adverts",
        expected: "the other takes over; after the thaw one has the VIP and announces it again",
        options: "",
        play: |bed| frozen(bed, "0.1", 2.0, false),
    },
    Scenario {
        name: "S1 the same, and it never hears who stood in for it",
        expected: "the same",
        options: "",
        play: |bed| frozen(bed, "0.1", 2.0, true),
    },
    Scenario {
        name: "S2 it stands still for 2.5 s, 1 s adverts",
        expected: "nobody takes over",
        options: "",
        play: |bed| frozen(bed, "1", 2.5, false),
    },
    Scenario {
        name: "S3 100 routers, 50 changes of an address of one of them within 10 s",
        expected: "nobody takes over, no farewell, no address of another goes",
        options: "reload by SIGHUP",
        play: fifty_changes,
    },
    Scenario {
        name: "S5 one VIP of four is taken out of the file",
        expected: "that one goes, no other",
        options: "reload by SIGHUP",
        play: one_vip_less,
    },
    Scenario {
        name: "S6 someone deletes the VIP five times, every 2 s",
        expected: "it is back within 200 ms each time, announced, nobody takes over",
        options: "",
        play: deleted,
    },
    Scenario {
        name: "S6 someone deletes it 50 times a second for 6 s",
        expected: "the other gateway has it",
        options: "",
        play: fought_for,
    },
    Scenario {
        name: "S7 the interface is deleted, and made again after 3 s",
        expected: "the other takes over; afterwards it moves back",
        options: "`dynamic_interfaces`",
        play: made_again,
    },
    Scenario {
        name: "S8 the cable is out for 5 s",
        expected: "the other takes over; afterwards it moves back",
        options: "",
        play: |bed| unplugged(bed, &Setup { interval: "0.1", ..Setup::default() }, 5.0),
    },
    Scenario {
        name: "S8 the cable is out for 200 ms, debounced by 500 ms, 1 s adverts",
        expected: "nobody takes over; it announces, as the switch forgot",
        options: "`interface_up_down_delays { eth0 0.5 0.5 }`",
        play: |bed| {
            let setup = Setup {
                interval: "1",
                havip: "carrier_delay = 0.5",
                outer: "interface_up_down_delays {\n  eth0 0.5 0.5\n}\n",
                ..Setup::default()
            };
            unplugged(bed, &setup, 0.2)
        },
    },
    Scenario {
        name: "S9 the other gateway boots; its port sends, and receives only after 15 s",
        expected: "it sends nothing and has no VIP before it hears",
        options: "`vrrp_startup_delay 20`; havip: `listen_first = 20`",
        play: deaf_at_boot,
    },
    Scenario {
        name: "S10 the kernel refuses its adverts (EPERM) for 3 s",
        expected: "it lets the VIP go when the other takes it; afterwards it moves back",
        options: "",
        play: refused,
    },
    Scenario {
        name: "S12 takeover of IPv6 VIPs where duplicates are looked for, after a `kill -9` as in S13",
        expected: "no VIP is ever tentative; it is announced",
        options: "",
        play: six,
    },
    Scenario {
        name: "S13 `kill -9` of havip's daemon or of all of keepalived, restarted after 2 s, no preemption",
        expected: "never two with the VIP, it stays with the other",
        options: "`nopreempt`",
        play: killed,
    },
    Scenario {
        name: "S16 three gateways, 10 ms adverts, the first is killed five times, as in S13",
        expected: "the second takes over each time, never the third",
        options: "`vrrp_rt_priority 50`, `vrrp_rlimit_rttime 1000000`",
        play: three,
    },
];

/// Rules that keep adverts from a host or in it.
fn firewall(host: &Host, hook: &str, there: bool) {
    let rules: &[String] = &[
        "add table ip lab".to_owned(),
        format!("add chain ip lab drops {{ type filter hook {hook} priority 0 ; }}"),
        "add rule ip lab drops ip protocol 112 drop".to_owned(),
    ];
    let gone = ["delete table ip lab".to_owned()];
    host.within(|| {
        for rule in if there { rules } else { &gone } {
            let status = Command::new("nft").args(rule.split(' ')).status();
            assert!(status.is_ok_and(|status| status.success()), "nft {rule}");
        }
    });
}

fn frozen(bed: &mut Bed, interval: &'static str, time: f64, deaf: bool) -> String {
    let setup = Setup { interval, ..Setup::default() };
    let pair = bed.pair(&setup);
    let (facts, thawed) = bed.observe(|bed| {
        bed::signal(&pair.0, "-STOP");
        pass(seconds(time));
        if deaf {
            firewall(&bed.a, "input", true);
        }
        let thawed = clock::now();
        bed::signal(&pair.0, "-CONT");
        pass(seconds(4.0));
        thawed
    });
    let again = bed.announced(bed.macs[0], VIP, thawed);
    format!("{facts}; announced after the thaw: {again}")
}

fn fifty_changes(bed: &mut Bed) -> String {
    let setup = |round: u32| Setup {
        interval: "0.1",
        routers: 100,
        excluded: Some(format!("10.1.0.{}", round / 2 + 1)),
        ..Setup::default()
    };
    let mut pair = bed.pair(&setup(0));
    let gone = bed::Gone::on(&bed.a);
    let (_, ()) = bed.observe(|bed| {
        for round in 1..=50 {
            bed.reload(&bed.a, &mut pair.0, &setup(round), 200);
            bed.reload(&bed.b, &mut pair.1, &setup(round), 100);
            pass(seconds(0.2));
        }
        pass(seconds(1.0));
    });
    let others = gone.read().into_iter().filter(|ip| !ip.to_string().starts_with("10.1.0."));
    let others = others.count();
    let taken = bed.takeovers();
    format!(
        "takeovers {taken}, farewells {}, addresses of others that went {others}, longest time \
         without an advert of a router {} ms",
        bed.farewells(),
        bed.longest_silence().as_millis()
    )
}

fn one_vip_less(bed: &mut Bed) -> String {
    let setup = |vips: &'static [&'static str]| Setup { interval: "0.1", vips, ..Setup::default() };
    let mut pair = bed.pair(&setup(&[VIP, "192.0.2.101/24", "192.0.2.102/24", "10.5.0.1/24"]));
    let gone = bed::Gone::on(&bed.a);
    let after = setup(&[VIP, "192.0.2.102/24", "10.5.0.1/24"]);
    let (facts, ()) = bed.observe(|bed| {
        bed.reload(&bed.a, &mut pair.0, &after, 200);
        bed.reload(&bed.b, &mut pair.1, &after, 100);
        pass(seconds(3.0));
    });
    let gone: Vec<String> = gone.read().iter().map(IpAddr::to_string).collect();
    format!("{facts}; went: {}; farewells {}", gone.join(", "), bed.farewells())
}

/// Takes the VIP from a host as a stranger does; whether it was there.
fn delete_vip(host: &Host) -> bool {
    host.within(|| {
        let mut requests = Requests::open().expect("this needs root");
        let index = index_of(&mut requests, "eth0");
        let prefix = Prefix { ip: lab::ip(VIP), len: 32 };
        requests.apply(&[Op { index, prefix, verb: Verb::Remove }]).is_ok_and(|r| r == [Ok(())])
    })
}

fn deleted(bed: &mut Bed) -> String {
    let pair = bed.pair(&Setup { interval: "0.1", ..Setup::default() });
    let (facts, back) = bed.observe(|bed| {
        let mut back = Vec::new();
        for _ in 0..5 {
            let at = clock::now();
            delete_vip(&bed.a);
            let restored = holds_within(seconds(1.9), || bed.a.has(VIP));
            let after = clock::now().since(at).as_millis();
            pass((at + seconds(2.0)).since(clock::now()));
            let announced = bed.announced(bed.macs[0], VIP, at) != "no";
            back.push((restored && announced).then_some(after));
        }
        back
    });
    drop(pair);
    let times = back.iter().flatten();
    format!(
        "{facts}; back on the same and announced {} of 5 times, after at most {} ms",
        times.clone().count(),
        times.max().copied().unwrap_or_default()
    )
}

fn fought_for(bed: &mut Bed) -> String {
    let pair = bed.pair(&Setup { interval: "0.1", ..Setup::default() });
    let (facts, holders) = bed.observe(|bed| {
        let end = clock::now() + seconds(6.0);
        while clock::now() < end {
            delete_vip(&bed.a);
            pass(seconds(0.02));
        }
        bed.holders()
    });
    drop(pair);
    format!("at the end of the fight the VIP is on {holders}; {facts}")
}

fn made_again(bed: &mut Bed) -> String {
    let setup = Setup { interval: "0.1", globals: "  dynamic_interfaces\n", ..Setup::default() };
    let pair = bed.pair(&setup);
    let (facts, ()) = bed.observe(|bed| {
        bed.lan.delete(&bed.a);
        pass(seconds(3.0));
        bed.lan.attach(&mut bed.a);
        pass(seconds(5.0));
    });
    drop(pair);
    facts
}

fn unplugged(bed: &mut Bed, setup: &Setup, time: f64) -> String {
    let pair = bed.pair(setup);
    let (facts, back) = bed.observe(|bed| {
        bed.lan.plug(&bed.a, false);
        pass(seconds(time));
        let back = clock::now();
        bed.lan.plug(&bed.a, true);
        pass(seconds(5.0));
        back
    });
    drop(pair);
    format!("{facts}; announced when it is back: {}", bed.announced(bed.macs[0], VIP, back))
}

fn deaf_at_boot(bed: &mut Bed) -> String {
    let setup = Setup { interval: "0.1", globals: "  vrrp_startup_delay 20\n", ..Setup::default() };
    // The delay is the second one's alone.
    let first = bed.start(&bed.a, &Setup { globals: "", ..setup.clone() }, 200);
    wait("it is active", || bed.a.has(VIP));
    firewall(&bed.b, "input", true);
    let setup = Setup { havip: "listen_first = 20", ..setup };
    let (facts, second) = bed.observe(|bed| {
        let second = bed.start(&bed.b, &setup, 100);
        pass(seconds(15.0));
        firewall(&bed.b, "input", false);
        pass(seconds(7.0));
        second
    });
    let sent = bed.capture.has_advert(bed.macs[1]);
    drop((first, second));
    format!("{facts}; the new one sent adverts: {}", if sent { "yes" } else { "no" })
}

fn refused(bed: &mut Bed) -> String {
    let pair = bed.pair(&Setup { interval: "0.1", ..Setup::default() });
    let (facts, again) = bed.observe(|bed| {
        firewall(&bed.a, "output", true);
        pass(seconds(3.0));
        let again = clock::now();
        firewall(&bed.a, "output", false);
        pass(seconds(12.0));
        again
    });
    drop(pair);
    format!("{facts}; announced when it may send again: {}", bed.announced(bed.macs[0], VIP, again))
}

fn six(bed: &mut Bed) -> String {
    for host in [&bed.a, &bed.b] {
        host.within(|| {
            for name in ["eth0", "all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{name}/accept_dad");
                std::fs::write(path, "1").expect("this needs root");
            }
        });
    }
    bed.watched = VIP6;
    let setup = Setup { interval: "0.1", vips: &["fe80::51", VIP6], ..Setup::default() };
    let (first, second) = bed.pair(&setup);
    let (facts, (tentative, at)) = bed.observe(|bed| {
        let at = clock::now();
        first.kill();
        let mut tentative = false;
        let end = at + seconds(3.0);
        while clock::now() < end {
            let all = bed.b.snapshot().addresses;
            let vips = ["fe80::51", VIP6].map(lab::ip);
            tentative |= all.iter().any(|a| vips.contains(&a.prefix.ip) && a.tentative);
        }
        (tentative, at)
    });
    drop(second);
    let announced = ["fe80::51", VIP6].map(|vip| bed.announced(bed.macs[1], vip, at));
    format!(
        "{facts}; ever tentative: {}; announced: {}",
        if tentative { "yes" } else { "no" },
        announced.join(" and ")
    )
}

fn killed(bed: &mut Bed) -> String {
    let setup = Setup {
        interval: "0.1",
        havip: "preempt = false",
        instance: "  nopreempt\n",
        ..Setup::default()
    };
    let (first, second) = bed.pair(&setup);
    let (facts, third) = bed.observe(|bed| {
        first.kill();
        pass(seconds(2.0));
        let third = bed.start(&bed.a, &setup, 200);
        pass(seconds(5.0));
        third
    });
    drop((second, third));
    facts
}

fn three(bed: &mut Bed) -> String {
    let globals = "  vrrp_rt_priority 50\n  vrrp_rlimit_rttime 1000000\n";
    let setup = Setup { interval: "0.01", globals, ..Setup::default() };
    let third_host = bed.lan.host();
    let second = bed.start(&bed.b, &setup, 200);
    let third = bed.start(&third_host, &setup, 100);
    let third_mac = third_host.mac();
    wait("the second is active", || bed.b.has(VIP));
    let (mut gaps, mut by_third) = (Vec::new(), 0);
    for _ in 0..5 {
        let first = bed.start(&bed.a, &setup, 254);
        wait("the first is active", || bed.a.has(VIP) && !bed.b.has(VIP));
        pass(seconds(1.0));
        bed.capture.forget();
        let at = clock::now();
        first.kill();
        wait("another takes over", || bed.b.has(VIP) || third_host.has(VIP));
        wait("it says so", || {
            bed.capture.has_advert(bed.macs[1]) || bed.capture.has_advert(third_mac)
        });
        gaps.push(bed.first_advert_since(at, bed.macs[0]));
        pass(seconds(0.5));
        by_third += usize::from(bed.capture.has_advert(third_mac));
    }
    drop((second, third));
    let gaps: Vec<String> = gaps.iter().map(|gap| format!("{:.0}", gap * 1e3)).collect();
    format!(
        "taken over after {} ms; the third said it was active: {by_third} of 5",
        gaps.join(", ")
    )
}

fn main() {
    if !has_keepalived() {
        return;
    }
    let only = Arguments::read().value("--only", "").to_owned();
    let columns = ["what happens", "what should", "havip", "keepalived", "options of keepalived"];
    let mut table = Table::beside_keepalived("scenarios", &columns);
    for Scenario { name, expected, options, play } in SCENARIOS {
        let number = name.split(' ').next().unwrap_or(name);
        if !only.is_empty() && !only.split(',').any(|wanted| wanted == number) {
            continue;
        }
        let [ours, theirs] = [false, true].map(|keepalived| {
            let run = move || {
                netns::unshare_net().expect("this needs root");
                play(&mut Bed::new(keepalived))
            };
            std::thread::spawn(run).join().unwrap_or_else(|_| "failed, see above".to_owned())
        });
        table.row(&[name, expected, ours.as_str(), &theirs, options]);
    }
}
