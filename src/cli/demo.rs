//! `havip demo`: a failover to look at, on a network of its own.
//!
//! Everything is in namespaces that only this process and its children have: a switch, three
//! gateways with a real daemon each, and a client that pings. They are gone when it ends.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::flags::{Command, Flag, Given, Word};
use super::{Exit, complain, print};
use crate::config::{IfName, Prefix};
use crate::linux::netlink::Requests;
use crate::linux::{Pinger, clock, die_with_parent, netns, terminate};
use crate::node::Instant;
use crate::offload;
use crate::wire::{IfIndex, vrrp};

pub(super) const COMMAND: Command = Command {
    name: "demo",
    summary: "show a failover on a network of its own",
    about: "\
Makes a switch, three gateways and a client in network namespaces of its own, runs a real daemon
on each gateway, pings their VIP, kills the active one, shows the failover with its measured gap,
then a graceful hand-over. Touches nothing of this machine's network, needs no etcd, and no root
where user namespaces are allowed. Ends by itself in under 30 seconds.",
    argument: Word::None,
    flags: &[Flag {
        long: "interval",
        short: None,
        value: Some("SECONDS"),
        help: "Advertisement interval, 0.01 to 1 (default 0.1).",
    }],
    run,
};

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const GATEWAYS: [(&str, u8); 3] = [("gw1", 200), ("gw2", 150), ("gw3", 100)];
/// Time between two pings.
const PING: Duration = Duration::from_millis(2);
/// Longest wait for anything to happen.
const PATIENCE: Duration = Duration::from_secs(12);

/// Silence of all daemons after which an act is over.
const QUIET: Duration = Duration::from_millis(300);

type Failure = Box<dyn std::error::Error>;

fn run(given: &Given) -> Exit {
    let interval = given.value("interval").unwrap_or("0.1");
    let fits = interval.parse::<f64>().is_ok_and(|seconds| (0.01..=1.0).contains(&seconds));
    if !fits {
        complain(&format!("--interval \"{interval}\": 0.01 to 1 seconds are shown"));
        return Exit::Usage;
    }
    if let Err(error) = isolate() {
        complain(&format!(
            "cannot make a network of its own: {error}. Run it as root (sudo havip demo), or \
             allow user namespaces: sysctl kernel.unprivileged_userns_clone=1 on Debian, \
             kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu"
        ));
        return Exit::Permission;
    }
    match show(interval) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(&format!("demo: {error}"));
            Exit::Failed
        }
    }
}

/// Leaves this machine's network; as root in a namespace of its own, else also as a user.
fn isolate() -> io::Result<()> {
    netns::unshare_net().or_else(|_| netns::unshare_user_net())
}

/// A gateway: its namespace, and the daemon in it.
struct Gateway {
    name: &'static str,
    namespace: OwnedFd,
    /// The switch's end of its cable.
    port: IfIndex,
    config: PathBuf,
    daemon: Option<Child>,
}

/// Folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Stage {
    home: OwnedFd,
    switch: Requests,
    gateways: Vec<Gateway>,
    lines: Receiver<(&'static str, String)>,
    line_sender: Sender<(&'static str, String)>,
    began: Instant,
    _folder: Folder,
}

fn show(interval: &str) -> Result<(), Failure> {
    let began = clock::now();
    let folder = std::env::temp_dir().join(format!("havip-demo-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let folder = Folder(folder);
    let (gateways, client, switch) = build_network(&folder.0, interval)?;
    let (line_sender, lines) = channel();
    let home = netns::current()?;
    let mut stage = Stage { home, switch, gateways, lines, line_sender, began, _folder: folder };
    print(&format!(
        "Three gateways and a client on a switch of their own. VIP {VIP}, VRRPv3, an advert each \
         {interval} s.\nAn active router is given up after 3 intervals and a skew that its \
         backup's priority decides.\n\n"
    ));
    let pings = Pings::start(client)?;
    let result = stage.play(interval, &pings);
    for gateway in &mut stage.gateways {
        if let Some(mut daemon) = gateway.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
    pings.stop();
    result
}

impl Stage {
    fn play(&mut self, interval: &str, pings: &Pings) -> Result<(), Failure> {
        for number in 0..self.gateways.len() {
            self.start(number)?;
        }
        self.until("gw1 is active", "gw1", "-> active")?;
        self.say("client", "waiting for the VIP to answer");
        let first = pings.next_answer(clock::now())?;
        self.say("client", &format!("{VIP} answers after {} ms", ms(first.since(self.began))));

        self.heading("The active gateway's cable is pulled: its backup must notice the silence");
        let cut_at = clock::now();
        self.plug(0, false)?;
        self.until("gw2 takes over", "gw2", "-> active")?;
        self.took("gw2 is active", cut_at, "the cut");
        self.expect_in(interval, 150)?;
        self.gap(pings, cut_at)?;

        self.heading("The cable is back: gw1 has the higher priority and takes over again");
        let back_at = clock::now();
        self.plug(0, true)?;
        self.until("gw1 is active again", "gw1", "-> active")?;
        self.gap(pings, back_at)?;

        self.heading("kill -9 of the active daemon: its guard is left, and gives up everything");
        let killed_at = clock::now();
        if let Some(daemon) = &mut self.gateways[0].daemon {
            daemon.kill()?;
            daemon.wait()?;
        }
        self.gateways[0].daemon = None;
        self.until("gw2 takes over", "gw2", "-> active")?;
        self.took("gw2 is active", killed_at, "the kill");
        let gone = self.until_dropped(0)?;
        self.say("gw1", &format!("VIP gone {} ms after the kill", ms(gone.since(killed_at))));
        self.gap(pings, killed_at)?;

        self.heading("The daemon of gw1 is started again");
        let back_at = clock::now();
        self.start(0)?;
        self.until("gw1 is active again", "gw1", "-> active")?;
        self.gap(pings, back_at)?;

        self.heading("SIGTERM to the active gateway: it says farewell first");
        let told_at = clock::now();
        if let Some(daemon) = &mut self.gateways[0].daemon {
            terminate(daemon)?;
            daemon.wait()?;
        }
        self.gateways[0].daemon = None;
        self.until("gw2 takes over", "gw2", "-> active")?;
        self.took("gw2 is active", told_at, "the signal");
        self.gap(pings, told_at)?;
        self.heading("That was it. Nothing is left behind");
        Ok(())
    }

    /// Plugs a gateway's cable in or out, at the switch.
    fn plug(&mut self, number: usize, plugged: bool) -> Result<(), Failure> {
        let port = self.gateways[number].port;
        Ok(self.switch.set_up(port, plugged)?)
    }

    fn took(&self, what: &str, since: Instant, event: &str) {
        self.say("", &format!("{what} {} ms after {event}", ms(clock::now().since(since))));
    }

    /// Says how long the client was without an answer, from `since` until shortly after now.
    fn gap(&self, pings: &Pings, since: Instant) -> Result<(), Failure> {
        let gap = pings.gap(since, clock::now() + Duration::from_millis(300))?;
        self.say("client", &format!("longest gap between answers: {} ms", ms(gap)));
        Ok(())
    }

    /// Says what the protocol allows.
    fn expect_in(&self, interval: &str, priority: u8) -> Result<(), Failure> {
        let centis = (interval.parse::<f64>()? * 100.0).round();
        let centis = vrrp::Centis(format!("{centis}").parse()?);
        let priority = vrrp::Priority::new(priority).ok_or("a priority")?;
        let down = vrrp::active_down_interval(vrrp::Version::V3, priority, centis);
        let least = down.saturating_sub(centis.duration());
        self.say("", &format!("the protocol allows {} to {} ms", ms(least), ms(down)));
        Ok(())
    }

    fn start(&mut self, number: usize) -> Result<(), Failure> {
        let gateway = &mut self.gateways[number];
        netns::enter(&gateway.namespace)?;
        let mut program = Program::new("/proc/self/exe");
        program.arg("run").arg("--config").arg(&gateway.config);
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        die_with_parent(&mut program);
        let started = program.spawn();
        netns::enter(&self.home)?;
        let mut daemon = started?;
        let name = gateway.name;
        let sender = self.line_sender.clone();
        if let Some(stderr) = daemon.stderr.take() {
            let reader = thread::Builder::new().name(name.into()).spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if sender.send((name, line)).is_err() {
                        break;
                    }
                }
            });
            if let Err(error) = reader {
                let _ = daemon.kill();
                let _ = daemon.wait();
                return Err(offload::no_task(&error).into());
            }
        }
        gateway.daemon = Some(daemon);
        Ok(())
    }

    /// Prints what the daemons log until one of them says `what`.
    fn until(&self, waiting_for: &str, name: &str, what: &str) -> Result<(), Failure> {
        let end = clock::now() + PATIENCE;
        loop {
            let left = end.since(clock::now());
            let Ok((from, line)) = self.lines.recv_timeout(left) else {
                return Err(format!("waited in vain: {waiting_for}").into());
            };
            self.say(from, &line);
            if from == name && line.contains(what) {
                return Ok(());
            }
        }
    }

    /// Waits until a gateway's kernel has no VIP any more.
    fn until_dropped(&self, number: usize) -> Result<Instant, Failure> {
        netns::enter(&self.gateways[number].namespace)?;
        let requests = Requests::open();
        netns::enter(&self.home)?;
        let mut requests = requests?;
        let end = clock::now() + PATIENCE;
        while clock::now() < end {
            let snapshot = requests.dump()?;
            let has = |ip| snapshot.addresses.iter().any(|address| address.prefix.ip == ip);
            if !has(IpAddr::V4(VIP)) {
                return Ok(clock::now());
            }
            let _ = self.lines.recv_timeout(Duration::from_millis(20));
        }
        Err("the VIP stays on a dead gateway".into())
    }

    /// Begins an act, once the one before has settled: what the daemons still have to say of that
    /// must not be taken for news.
    fn heading(&self, text: &str) {
        while let Ok((from, line)) = self.lines.recv_timeout(QUIET) {
            self.say(from, &line);
        }
        print(&format!("\n{text}\n"));
    }

    fn say(&self, who: &str, text: &str) {
        let at = clock::now().since(self.began);
        print(&format!("{:>8.3} s  {who:<7} {text}\n", at.as_secs_f64()));
    }
}

/// Makes the switch here, and a namespace with an `eth0` for everybody else.
fn build_network(
    folder: &Path,
    interval: &str,
) -> Result<(Vec<Gateway>, OwnedFd, Requests), Failure> {
    let home = netns::current()?;
    let mut requests = Requests::open()?;
    let bridge = IfName::new("br0").map_err(|why| why.0)?;
    requests.add_bridge(&bridge)?;
    let bridge = index_of(&mut requests, &bridge)?;
    requests.set_up(bridge, true)?;
    let mut gateways = Vec::new();
    for (number, (name, priority)) in (1..).zip(GATEWAYS) {
        let (namespace, port) = attach(&mut requests, &home, bridge, number)?;
        let config = folder.join(format!("{name}.toml"));
        let run_dir = folder.join(name);
        fs::write(
            &config,
            format!(
                "[havip]\nnode = \"{name}\"\nrun_dir = \"{}\"\n\n[node.{name}]\nvrids = [51]\n\n\
                 [virtual_router.51]\ninterface = \"eth0\"\nvips = [\"{VIP}\"]\n\
                 priority = {priority}\nadvert_interval = {interval}\n",
                run_dir.display()
            ),
        )?;
        gateways.push(Gateway { name, namespace, port, config, daemon: None });
    }
    let (client, _) = attach(&mut requests, &home, bridge, 10)?;
    Ok((gateways, client, requests))
}

/// A new namespace whose `eth0` is a port of the switch, with address 192.0.2.`number`.
fn attach(
    requests: &mut Requests,
    home: &OwnedFd,
    bridge: IfIndex,
    number: u8,
) -> Result<(OwnedFd, IfIndex), Failure> {
    netns::unshare_net()?;
    let namespace = netns::current()?;
    let inside = Requests::open();
    netns::enter(home)?;
    let mut inside = inside?;
    let port = IfName::new(&format!("port{number}")).map_err(|why| why.0)?;
    let eth0 = IfName::new("eth0").map_err(|why| why.0)?;
    requests.add_veth(&port, &eth0, Some(namespace.as_fd()))?;
    let port = index_of(requests, &port)?;
    requests.set_master(port, bridge)?;
    requests.set_up(port, true)?;
    let eth0 = index_of(&mut inside, &eth0)?;
    inside.add_address(eth0, Prefix { ip: [192, 0, 2, number].into(), len: 24 })?;
    inside.set_up(eth0, true)?;
    Ok((namespace, port))
}

fn index_of(requests: &mut Requests, name: &IfName) -> Result<IfIndex, Failure> {
    let snapshot = requests.dump()?;
    let link = snapshot.links.iter().find(|link| link.name == *name);
    link.map(|link| link.index).ok_or_else(|| format!("{name}: not there").into())
}

/// A client that pings the VIP and remembers when answers came.
struct Pings {
    answers: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Pings {
    fn start(namespace: OwnedFd) -> Result<Self, Failure> {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (ready_sender, ready) = channel();
        let (seen, ended) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = thread::Builder::new().name("client".into()).spawn(move || {
            let pinger = netns::enter(&namespace).and_then(|()| Pinger::open(VIP));
            let pinger = match pinger {
                Ok(pinger) => pinger,
                Err(error) => return drop(ready_sender.send(Err(error))),
            };
            let _ = ready_sender.send(Ok(()));
            let mut sequence = 0;
            let mut due = clock::now();
            while !ended.load(Ordering::Relaxed) {
                let now = clock::now();
                if now >= due {
                    pinger.send(sequence);
                    sequence = sequence.wrapping_add(1);
                    due = now + PING;
                }
                if pinger.receive(due.since(now)).is_some() {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(clock::now());
                }
            }
        });
        let thread = thread.map_err(|error| offload::no_task(&error))?;
        ready.recv()??;
        Ok(Self { answers, stop, thread })
    }

    fn answers(&self) -> Vec<Instant> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first answer after `from`.
    fn next_answer(&self, from: Instant) -> Result<Instant, Failure> {
        let end = clock::now() + PATIENCE;
        while clock::now() < end {
            if let Some(at) = self.answers().into_iter().find(|at| *at >= from) {
                return Ok(at);
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        Err("the VIP does not answer".into())
    }

    /// Longest time without an answer between two points in time; waits until the second one.
    fn gap(&self, from: Instant, to: Instant) -> Result<Duration, Failure> {
        let last = self.next_answer(to)?;
        let mut gap = Duration::ZERO;
        let mut before: Option<Instant> = None;
        for at in self.answers() {
            if let Some(before) = before.filter(|_| at > from && at <= last) {
                gap = gap.max(at.since(before));
            }
            before = Some(at);
        }
        Ok(gap)
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // It has no answer that anybody waits for.
        let _ = self.thread.join();
    }
}

fn ms(time: Duration) -> u128 {
    time.as_millis()
}
