//! What cannot be done to the machine that tests run on: its clock is set, it sleeps, and it gets
//! hundreds of links; or what its kernel may lack. These are played on a kernel of their own, which
//! `tests/lab/vm` boots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use havip::linux::clock;
use havip::node::Instant;
use havip::wire::Mac;

use super::*;
use crate::lab::capture::What;

/// Seconds for which a guest may run; it takes a fraction of that.
const LIMIT_SECONDS: &str = "300";
/// Where Debian has iproute2; it goes into the guest.
const IPROUTE: &str = "/usr/sbin/ip";
/// What `tests/lab/vm` says when there is no machine to be had.
const NOT_TO_BE_HAD: i32 = 77;

/// A test whose body runs as root on a kernel that nobody else uses.
macro_rules! on_its_own_kernel {
    (fn $name:ident() $body:block) => {
        #[test]
        fn $name() {
            const NAME: &str = concat!(module_path!(), "::", stringify!($name));
            $crate::guest::on_its_own_kernel(NAME, || $crate::lab::isolated(NAME, || $body));
        }
    };
}

mod masters;

/// Runs `body`, of the test with the path `name`, in the guest: there, this same program runs this
/// same test.
fn on_its_own_kernel(name: &str, body: fn()) {
    let name = name.split_once("::").map_or(name, |(_this_crate, rest)| rest);
    const WITHIN: &str = "HAVIP_TEST_IN_GUEST";
    if std::env::var_os(WITHIN).is_some() {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/vm"))
        .arg(LIMIT_SECONDS)
        .arg(&this)
        .args([env!("CARGO_BIN_EXE_havip"), IPROUTE])
        .args(["--", "env", &format!("{WITHIN}=1"), "RUST_BACKTRACE=0"])
        .arg(&this)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.code() == Some(NOT_TO_BE_HAD) {
        return lab::skip(name, "no guest; run tests/lab/fetch guest");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // Indented: its result is not one more for who counts results.
    let said = String::from_utf8_lossy(&output.stderr);
    eprint!("  {}\n  {}", text.replace('\n', "\n  "), said.replace('\n', "\n  "));
    assert!(output.status.success(), "{name}, on its own kernel: {}", output.status);
    // A name that fits no test would succeed as well.
    assert!(text.contains("1 passed"), "{text}");
}

/// When `from` advertised.
fn adverts(capture: &Capture, from: Mac) -> Vec<Instant> {
    let advert = |seen: &lab::capture::Seen| matches!(seen.what, What::Advert { .. });
    let all = capture.all().into_iter().filter(|seen| seen.from == from && advert(seen));
    all.map(|seen| seen.at).collect()
}

/// The longest time between two adverts of `from`.
fn longest_gap(capture: &Capture, from: Mac) -> Duration {
    let all = adverts(capture, from);
    all.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap()
}

fn shell(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

on_its_own_kernel! {
    fn s17_a_clock_that_is_set_or_slewed_moves_nobody() {
        let mut lan = Lan::new();
        // All is emulated: half a second is little.
        let Pair { a, b: _other, capture, first, second } = Pair::every("0.5", &mut lan, "");
        let changes: [(&str, &str, i64); 4] = [
            ("an hour on", "date -s @$(( $(date +%s) + 3600 ))", 3600),
            ("an hour back", "date -s @$(( $(date +%s) - 3600 ))", -3600),
            ("a year back", "date -s @$(( $(date +%s) - 31536000 ))", -31_536_000),
            // As fast as NTP may: 500 ppm, in the unit of adjtimex(2).
            ("slewed", "adjtimex -f 32768000 && adjtimex -o 500000", 0),
        ];
        for (what, command, seconds) in changes {
            capture.forget();
            let many = |count| move |capture: &Capture, a: Mac| adverts(capture, a).len() >= count;
            wait("it advertises", || many(4)(&capture, a.mac()));
            let before = clock::wall();
            shell(&format!("{{ {command}; }} >/dev/null"));
            let moved = clock::wall().cast_signed() - before.cast_signed();
            assert!((moved - seconds).abs() < 60, "{what}: the clock moved by {moved} s");
            wait("it goes on", || many(12)(&capture, a.mac()));
            let gap = longest_gap(&capture, a.mac());
            eprintln!("{what}: longest time between two adverts {gap:?}");
            // Active_Down_Interval of the backup: 3 intervals and its skew.
            assert!(gap < Duration::from_millis(1_800), "{what}: {gap:?} without an advert");
            let heard = router(&second)["heard"]["ago_ms"].as_u64().unwrap();
            assert!(heard < 10_000, "{what}: heard {heard} ms ago");
            for daemon in [&first, &second] {
                let status = daemon.status();
                let up = status["uptime_ms"].as_u64().unwrap();
                assert!(up < 120_000, "{what}: up for {up} ms");
            }
        }
        assert_eq!(counter(&first, "master_transitions"), 1);
        assert_eq!(counter(&second, "master_transitions"), 0);
        assert_eq!(counter(&first, "overslept"), 0);
        assert_eq!(counter(&second, "overslept"), 0);
    }
}

on_its_own_kernel! {
    fn s17_gateways_that_were_suspended_agree_and_announce() {
        let mut lan = Lan::new();
        let Pair { a, b, capture, first, second } = Pair::start(&mut lan, "");
        capture.forget();
        let before = clock::now();
        // The alarm wakes the box from ACPI's S3.
        shell("echo +4 >/sys/class/rtc/rtc0/wakealarm && echo mem >/sys/power/state");
        let away = clock::now().since(before);
        assert!(away > Duration::from_secs(1), "it slept for {away:?}");
        wait("what others may have forgotten is announced again", || {
            capture.has_claim(a.mac(), VIP)
        });
        wait("one is active", || {
            (first.state(), second.state()) == ("active".into(), "backup".into())
        });
        wait("one has the VIP", || a.has(VIP) && !b.has(VIP));
        // Who overslept listens before it acts, so nobody took over. The backup has not overslept
        // where the other's first advert was there before it ran again.
        let overslept = [&first, &second].map(|daemon| counter(daemon, "overslept"));
        let logs = || format!("{}\n{}", first.log(), second.log());
        assert!([[1, 0], [1, 1]].contains(&overslept), "{overslept:?}\n{}", logs());
        assert_eq!(counter(&first, "master_transitions"), 1);
        assert_eq!(counter(&second, "master_transitions"), 0);
    }
}

/// Interfaces of the storm, how many of them carry a router, and addresses.
const LINKS: u32 = 500;
const ROUTERS: u32 = 60;
const ADDRESSES: u32 = 300;

/// Has iproute2 do what `line` says of each number.
fn batch(host: &Host, numbers: std::ops::RangeInclusive<u32>, line: impl Fn(u32) -> String) {
    let path = host.folder().join("batch");
    fs::write(&path, numbers.map(|n| line(n) + "\n").collect::<String>()).unwrap();
    host.within(|| shell(&format!("{IPROUTE} -batch {}", path.display())));
}

/// Of each interface: whether it is up, and its IPv4 addresses; as iproute2 tells it.
fn truth(host: &Host) -> BTreeMap<String, (bool, BTreeSet<String>)> {
    let output = host.within(|| Command::new(IPROUTE).args(["-j", "addr"]).output().unwrap());
    let links: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of_link = |link: &Value| {
        let up = link["flags"].as_array().unwrap().iter().any(|flag| flag == "UP");
        let all = link["addr_info"].as_array().unwrap().iter();
        let four = all.filter(|one| one["family"] == "inet").map(|one| text(&one["local"]));
        (text(&link["ifname"]), (up, four.collect()))
    };
    links.as_array().unwrap().iter().map(of_link).collect()
}

/// What the storm's routers should be, by what is true: active with their VIP where the interface
/// is up and has an address to send from, and not there otherwise. Then what they are.
fn models(host: &Host, daemon: &Daemon) -> [Vec<(String, &'static str)>; 2] {
    let (truth, status) = (truth(host), daemon.status());
    let routers = status["vrrp"]["routers"].as_array().unwrap();
    let storm = routers.iter().filter(|router| router["name"] != "51");
    storm
        .map(|router| {
            let name = router["name"].as_str().unwrap();
            let vip = format!("10.8.{}.100", &name[1..]);
            let (up, mut addresses) =
                truth.get(&name.replace('d', "storm")).cloned().unwrap_or_default();
            let holds = addresses.remove(&vip);
            let should = if up && !addresses.is_empty() { "active" } else { "initialize" };
            let is = match (router["state"].as_str().unwrap(), holds) {
                ("active", true) => "active",
                ("initialize", false) => "initialize",
                _ => "something between",
            };
            ((name.to_owned(), should), (name.to_owned(), is))
        })
        .unzip::<_, _, Vec<_>, Vec<_>>()
        .into()
}

on_its_own_kernel! {
    fn s11_a_storm_of_links_is_read_again_until_what_is_known_is_true() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let names: Vec<String> = (1..=ROUTERS).map(|n| format!("\"d{n}\"")).collect();
        let main = format!(
            "[virtual_router.51]\ninterface = \"eth0\"\nvips = [\"{VIP}\"]\n"
        );
        let mut text = format!("[node.gw1]\nvrids = [\"51\", {}]\n{main}", names.join(", "));
        for n in 1..=ROUTERS {
            text += &format!(
                "[virtual_router.d{n}]\nvrid = {n}\ninterface = \"storm{n}\"\n\
                 advert_interval = 0.1\nvips = [\"10.8.{n}.100\"]\n"
            );
        }
        let first = a.daemon(&text);
        wait("it is active", || first.state() == "active" && a.has(VIP));
        // All at once, while it does not read, is more than its socket holds.
        first.signal("-STOP");
        storm(&a, LINKS);
        first.signal("-CONT");
        wait("it noticed", || first.log().contains("notifications overflowed"));
        agrees(&a, &first);
        // And beside a backup, while it does read: fewer, as that is slow where all is emulated.
        let second = b.daemon(&format!(
            "[node.gw2]\nvrids = [\"51\"]\n{main}priority = 90\n"
        ));
        wait_heard(&second);
        batch(&a, 1..=1, |group| format!("link del group {group}"));
        storm(&a, LINKS / 10);
        agrees(&a, &first);
        eprintln!("{} overflows", first.log().matches("notifications overflowed").count());
        assert_eq!(counter(&first, "master_transitions"), 1);
        assert_eq!(counter(&first, "priority_zero_sent"), 0);
        assert_eq!(counter(&second, "master_transitions"), 0);
        assert!(a.has(VIP) && !b.has(VIP));
    }
}

/// Makes, moves and deletes links and addresses. Of those with a router, ten are down in the end,
/// ten are up, of which five have no address, and the others are gone.
fn storm(host: &Host, links: u32) {
    let address = |n: u32| format!("10.8.{}.{}/24 dev storm{n}", n % 250, n / 250 + 1);
    // Those of a group can be deleted at once, which spares the kernel hundreds of grace periods.
    let group = |n: u32| if n <= 20 { 1 } else { 2 };
    batch(host, 1..=links, |n| format!("link add storm{n} group {} type dummy", group(n)));
    batch(host, 1..=links, |n| format!("link set storm{n} up"));
    batch(host, 1..=ADDRESSES.min(links), |n| format!("addr add {}", address(n)));
    for state in ["down", "up", "down", "up"] {
        batch(host, 1..=links, |n| format!("link set storm{n} {state}"));
    }
    batch(host, 1..=10, |n| format!("link set storm{n} down"));
    batch(host, 16..=20, |n| format!("addr del {}", address(n)));
    batch(host, 2..=2, |group| format!("link del group {group}"));
}

/// Waits until what a gateway has made of its interfaces is what is true of them.
fn agrees(host: &Host, daemon: &Daemon) {
    wait("what is known is true", || {
        let [should, is] = models(host, daemon);
        should == is && daemon.status()["vrrp"]["kernel_in_sync"] == true
    });
    let [should, _] = models(host, daemon);
    let active = should.iter().filter(|(_, state)| *state == "active").count();
    assert_eq!((active, should.len()), (5, ROUTERS as usize), "the storm itself went wrong");
}

on_its_own_kernel! {
    fn a_claim_in_a_vlan_concerns_its_own_interface_alone() {
        let mut lan = Lan::new();
        let (a, b) = (lan.host(), lan.host());
        let add = "ip link add link eth0 name eth0.100 type vlan id 100 && \
                   ip addr add 198.18.0.1/24 dev eth0.100 && ip link set eth0.100 up";
        a.within(|| shell(add));
        let router_on = |name: &str, vrid: u8, interface: &str, vip: &str| {
            format!(
                "[virtual_router.{name}]\nvrid = {vrid}\ninterface = \"{interface}\"\n\
                 vips = [\"{vip}\"]\nadvert_interval = 0.1\n"
            )
        };
        let tagged_vip = "198.18.0.100";
        let daemon = a.daemon(&format!(
            "[node.gw1]\nvrids = [\"1\", \"2\"]\n{}{}",
            router_on("1", 1, "eth0", VIP),
            router_on("2", 2, "eth0.100", tagged_vip)
        ));
        wait("both are active", || a.has(VIP) && a.has(tagged_vip));
        let conflict = |at: usize| daemon.status()["vrrp"]["routers"][at]["conflict"].to_string();
        let theirs = Mac([2, 0, 0, 0xbe, 0xef, 1]);
        let (socket, index) = b.within(|| {
            let mut requests = havip::linux::netlink::Requests::open().unwrap();
            (havip::linux::PacketSocket::open().unwrap(), lab::index_of(&mut requests, "eth0"))
        });
        // A claim for each VIP, in each of two VLANs that are not the VIP's own: one that has an
        // interface here, and one that has none.
        let send = |vip: &str, vlan: Option<u8>| {
            let mut frame = Vec::new();
            havip::wire::arp::gratuitous(theirs, vip.parse().unwrap(), &mut frame);
            if let Some(vlan) = vlan {
                frame.splice(12..12, [0x81, 0, 0, vlan]);
            }
            assert_eq!(socket.send_batch(index, &[frame]), (1, None));
        };
        wait("the one in the VLAN is named", || {
            send(VIP, Some(100));
            send(VIP, Some(7));
            send(tagged_vip, Some(100));
            conflict(1).contains(tagged_vip)
        });
        assert_eq!(conflict(0), "null");
        wait("the other one is named", || {
            send(VIP, None);
            conflict(0).contains(VIP)
        });
    }
}
