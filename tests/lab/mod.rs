//! What tests with real daemons share: network namespaces joined by a switch, daemons in them,
//! and waiting for conditions.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

pub mod asker;
pub mod capture;
mod daemon;
pub mod listener;
pub mod peer;
pub mod proxy;

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use havip::config::{IfName, Prefix};
use havip::linux::netlink::Requests;
use havip::linux::{Pinger, clock, die_with_parent, netns};
use havip::node::kernel::{Op, Snapshot, Verb};
use havip::wire::{IfIndex, Mac};

pub use daemon::Daemon;

/// Longer than anything that is waited for takes; only a failing test waits as long.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A test whose body runs in a network namespace of its own.
#[macro_export]
macro_rules! isolated {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        #[test]
        $(#[$attribute])*
        fn $name() {
            $crate::lab::isolated(concat!(module_path!(), "::", stringify!($name)), || $body);
        }
    };
}

/// Runs `body`, of the test with the path `name`, in a new network namespace on a thread of its
/// own. Without root it runs again within a user namespace; without those it is skipped.
pub fn isolated(name: &'static str, body: fn()) {
    let name = name.split_once("::").map_or(name, |(_this_crate, rest)| rest);
    const WITHIN: &str = "HAVIP_TEST_IN_USER_NAMESPACE";
    let run = move || netns::unshare_net().is_ok().then(body).is_some();
    match std::thread::spawn(run).join() {
        Ok(true) => return,
        Ok(false) => {}
        Err(panic) => std::panic::resume_unwind(panic),
    }
    let mut within = Command::new("unshare");
    within.args(["--user", "--map-root-user"]);
    if std::env::var_os(WITHIN).is_some() || !within.arg("true").status().is_ok_and(|s| s.success())
    {
        return skip(name, "needs root");
    }
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--test-threads=1"])
        .env(WITHIN, "1")
        // Debian has nft and others where only root looks for programs.
        .env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin")
        .output()
        .unwrap();
    io::stderr().write_all(&output.stderr).unwrap();
    // Indented: its result is not one more for who counts results.
    let said = String::from_utf8_lossy(&output.stdout).replace('\n', "\n  ");
    assert!(output.status.success(), "within a user namespace:\n  {said}");
}

/// Says so past libtest's capture, so that it is seen of a test that passes, and in the file that
/// the runner counts skips with.
pub fn skip(name: &str, why: &str) {
    let line = format!("skipped: {why} ({name})\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
    if let Some(path) = std::env::var_os("HAVIP_SKIPPED") {
        let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(LIMIT, condition), "waited in vain: {what}");
}

/// Whether `condition` comes to hold within `time`; looks every few milliseconds.
pub fn holds_within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = clock::now() + time;
    loop {
        if condition() {
            return true;
        }
        if clock::now() >= end {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

/// A folder that goes with its owner.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("havip-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A switch in the test's own namespace, to which hosts are attached.
pub struct Lan {
    home: OwnedFd,
    requests: Requests,
    bridge: IfIndex,
    hosts: u8,
}

impl Lan {
    pub fn new() -> Self {
        Self::named("br0")
    }

    /// A switch of another name, for a second one in the same test.
    pub fn named(bridge: &str) -> Self {
        let mut requests = Requests::open().unwrap();
        requests.add_bridge(&name(bridge)).unwrap();
        let bridge = index_of(&mut requests, bridge);
        requests.set_up(bridge, true).unwrap();
        Self { home: netns::current().unwrap(), requests, bridge, hosts: 0 }
    }

    /// Gives the switch an address of its own: what listens there in the test's namespace is on
    /// the LAN.
    pub fn address(&mut self) -> IpAddr {
        let ip: IpAddr = [192, 0, 2, 254].into();
        let lo = index_of(&mut self.requests, "lo");
        self.requests.set_up(lo, true).unwrap();
        self.requests.add_address(self.bridge, Prefix { ip, len: 24 }).unwrap();
        ip
    }

    /// A host whose `eth0` is a port of the switch: 192.0.2.n/24 and fe80::n, n from 1.
    pub fn host(&mut self) -> Host {
        self.hosts += 1;
        let number = self.hosts;
        netns::unshare_net().unwrap();
        let namespace = netns::current().unwrap();
        netns::enter(&self.home).unwrap();
        let mut host = Host {
            number,
            home: self.home.try_clone().unwrap(),
            port: IfIndex(0),
            namespace,
            folder: Folder::new(),
        };
        self.attach(&mut host);
        host
    }

    /// Gives a host an `eth0`: its first one, or a new one after the last was deleted.
    pub fn attach(&mut self, host: &mut Host) {
        let port = format!("port{}.{}", self.bridge.0, host.number);
        let requests = &mut self.requests;
        requests.add_veth(&name(&port), &name("eth0"), Some(host.namespace.as_fd())).unwrap();
        host.port = index_of(requests, &port);
        requests.set_master(host.port, self.bridge).unwrap();
        requests.set_up(host.port, true).unwrap();
        host.configure(0);
    }

    /// A second cable from the switch to a host, where it is `eth1`, down and without an address.
    pub fn second_cable(&mut self, host: &Host) {
        let port = format!("second{}.{}", self.bridge.0, host.number);
        let requests = &mut self.requests;
        requests.add_veth(&name(&port), &name("eth1"), Some(host.namespace.as_fd())).unwrap();
        let port = index_of(requests, &port);
        requests.set_master(port, self.bridge).unwrap();
        requests.set_up(port, true).unwrap();
    }

    /// Takes two hosts off the switch and puts cables between them, `eth0` and on: what a packet
    /// costs on its way is then theirs alone.
    pub fn join(&mut self, a: &Host, b: &Host, cables: u8) {
        self.delete(a);
        self.delete(b);
        for cable in 0..cables {
            a.within(|| {
                let eth = name(&format!("eth{cable}"));
                let mut requests = Requests::open().unwrap();
                requests.add_veth(&eth, &eth, Some(b.namespace.as_fd())).unwrap();
            });
            a.configure(cable);
            b.configure(cable);
        }
    }

    /// Plugs a host's cable in or out.
    pub fn plug(&mut self, host: &Host, plugged: bool) {
        self.requests.set_up(host.port, plugged).unwrap();
    }

    /// Takes a host's port off the switch, or puts it there; the host sees nothing of it.
    pub fn join_switch(&mut self, host: &Host, joined: bool) {
        let master = if joined { self.bridge } else { IfIndex(0) };
        self.requests.set_master(host.port, master).unwrap();
    }

    /// Deletes a host's `eth0`.
    pub fn delete(&mut self, host: &Host) {
        self.requests.delete_link(host.port).unwrap();
    }
}

pub fn index_of(requests: &mut Requests, wanted: &str) -> IfIndex {
    let snapshot = requests.dump().unwrap();
    snapshot.links.iter().find(|link| link.name.as_str() == wanted).unwrap().index
}

/// A machine: a network namespace, and a folder for what runs in it.
pub struct Host {
    number: u8,
    home: OwnedFd,
    port: IfIndex,
    namespace: OwnedFd,
    folder: Folder,
}

impl Host {
    /// Does something within the host's network.
    pub fn within<T>(&self, body: impl FnOnce() -> T) -> T {
        netns::enter(&self.namespace).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        netns::enter(&self.home).unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Sets a cable's end up, with its address: 192.0.2.n/24 at `eth0`, 198.18.c.n/24 at others.
    fn configure(&self, cable: u8) {
        self.within(|| {
            // Duplicate address detection would keep a link-local address tentative for a second.
            let eth = format!("eth{cable}");
            fs::write(format!("/proc/sys/net/ipv6/conf/{eth}/accept_dad"), "0").ok();
            let mut requests = Requests::open().unwrap();
            let lo = index_of(&mut requests, "lo");
            requests.set_up(lo, true).unwrap();
            let eth = index_of(&mut requests, &eth);
            let network = if cable == 0 { [192, 0, 2] } else { [198, 18, cable] };
            let ip = [network[0], network[1], network[2], self.number].into();
            requests.add_address(eth, Prefix { ip, len: 24 }).unwrap();
            requests.set_up(eth, true).unwrap();
        });
    }

    /// Its number: `gwN` is its node's name.
    pub const fn number(&self) -> u8 {
        self.number
    }

    pub fn ip(&self) -> String {
        format!("192.0.2.{}", self.number)
    }

    /// The MAC of its `eth0`.
    pub fn mac(&self) -> Mac {
        let links = self.snapshot().links;
        links.iter().find(|link| link.name.as_str() == "eth0").and_then(|link| link.mac).unwrap()
    }

    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub fn snapshot(&self) -> Snapshot {
        self.within(|| {
            let mut requests = Requests::open().unwrap();
            // Others change addresses meanwhile; the dump is then asked for again.
            loop {
                match requests.dump() {
                    Ok(snapshot) => return snapshot,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    }

    /// Whether an address is on the host.
    pub fn has(&self, wanted: &str) -> bool {
        let wanted = ip(wanted);
        self.snapshot().addresses.iter().any(|address| address.prefix.ip == wanted)
    }

    /// Whether an IPv4 address answers this host within a moment.
    pub fn reaches(&self, target: &str) -> bool {
        let target: Ipv4Addr = target.parse().unwrap();
        self.within(|| {
            let pinger = Pinger::open(target).unwrap();
            (0..10).any(|sequence| {
                pinger.send(sequence);
                pinger.receive(Duration::from_millis(200)).is_some()
            })
        })
    }

    /// Has iproute2 do here what is written behind `ip`; gives what it says.
    #[track_caller]
    pub fn run_ip(&self, words: &str) -> String {
        let output = self.within(|| Command::new("ip").args(words.split(' ')).output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {words}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Makes it a box where nothing carries a mark: what a kernel before 5.18 shows.
    pub fn without_marks(&self) {
        self.within(|| {
            fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
            let mut requests = Requests::open().unwrap();
            let index = index_of(&mut requests, "lo");
            let prefix = Prefix { ip: ip("127.0.0.1"), len: 8 };
            let op = Op { index, prefix, verb: Verb::Remove };
            assert_eq!(requests.apply(&[op]).unwrap(), [Ok(())]);
        });
    }

    /// Starts a program here; its output goes into `log`.
    pub fn start(&self, program: &mut Command, log: &Path) -> Child {
        let output = fs::File::options().create(true).append(true).open(log).unwrap();
        program.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        die_with_parent(program);
        self.within(|| program.spawn().unwrap())
    }

    /// The local file's text for a daemon here: its own tables, then `rest`. Its bridge sends and
    /// receives from the first moment, so that nobody needs to listen first.
    pub fn config(&self, rest: &str) -> String {
        let (number, run_dir) = (self.number, self.folder.0.join("run"));
        format!(
            "[havip]\nnode = \"gw{number}\"\nrun_dir = \"{}\"\n\n{rest}\n\
             [node.gw{number}.virtual_router.default]\nlisten_first = 0\n",
            run_dir.display()
        )
    }

    /// The same, for a daemon whose death nobody answers to but the kernel.
    pub fn config_without_guard(&self, rest: &str) -> String {
        self.config(rest).replacen("[havip]\n", "[havip]\nguard = false\n", 1)
    }

    /// Starts a daemon here with this local file below its own tables.
    pub fn daemon(&self, rest: &str) -> Daemon {
        self.daemon_of(&self.config(rest))
    }

    /// Starts a daemon here with this text as its whole local file.
    pub fn daemon_of(&self, text: &str) -> Daemon {
        self.daemon_in(&[], text)
    }

    /// The same, with these variables in its environment.
    pub fn daemon_in(&self, environment: &[(&str, String)], text: &str) -> Daemon {
        self.daemon_with(&[], environment, text)
    }

    /// The same, with these flags more.
    pub fn daemon_with(
        &self,
        flags: &[&str],
        environment: &[(&str, String)],
        text: &str,
    ) -> Daemon {
        let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
        program.envs(environment.iter().map(|(name, value)| (name, value)));
        self.daemon_by(program, flags, text)
    }

    /// Starts a daemon here by this program, which executes the rest of its arguments, or is havip.
    pub fn daemon_by(&self, mut program: Command, flags: &[&str], text: &str) -> Daemon {
        let config = self.folder.0.join("havip.toml");
        fs::write(&config, text).unwrap();
        // It may hold a password.
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        let log = self.folder.0.join("log");
        program.arg("run").arg("--config").arg(&config).args(flags);
        let child = self.start(&mut program, &log);
        Daemon { child, config, log, socket: self.folder.0.join("run/havip.sock") }
    }

    /// A router with these keys, run by this host's node.
    pub fn router(&self, name: &str, keys: &str) -> String {
        format!(
            "[node.gw{}]\nvrids = [\"{name}\"]\n\n[virtual_router.{name}]\ninterface = \"eth0\"\n\
             {keys}\n",
            self.number
        )
    }
}
