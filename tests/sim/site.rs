//! A site that a seed makes up: gateways, routers, and what the store says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use havip::config::{NodeName, Prefix};
use havip::sim::{Clock, DRIFT_MAX_PPM, Rng, World};
use havip::wire::IfIndex;

/// How sites and faults are drawn from a seed. What was found in one way has to be found in it
/// again: a change that makes another site of a seed is a way more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    First,
    Second,
    /// With VIPs of every prefix length, and strangers' addresses beside them.
    Third,
}

/// One virtual router as it is meant to be.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) is_v6: bool,
    version: u8,
    /// Centiseconds: what it began with, and what it is.
    usual: u64,
    interval: u64,
    /// Those that are advertised, then the others, with `None` for a site that knows of none. Where
    /// there are some, or may be, their key is always there: that a key which was new is gone is
    /// all that a node cannot tell from a deletion when a store is restored.
    vips: Vec<IpAddr>,
    excluded: Option<Vec<IpAddr>>,
    /// Prefix lengths that they are configured with, by family; `None`: a host's.
    lens: [Option<u8>; 2],
    password: Option<u64>,
    /// Keys that stay as they are.
    keys: Vec<(&'static str, &'static str)>,
    /// By machine.
    priorities: Vec<u64>,
    preempts: Vec<bool>,
}

/// The site, as its operator means it, and what was done to it on purpose.
pub(crate) struct Site {
    pub(crate) routers: Vec<Spec>,
    machines: usize,
    /// The local file of every gateway.
    local: &'static str,
    unlisted: BTreeSet<(usize, usize)>,
    /// Everything that was ever taken out by word.
    pub(crate) ever_unlisted: BTreeSet<(usize, String)>,
    /// VIPs that were ever taken away by word, and that there ever were.
    pub(crate) ever_dropped: BTreeSet<IpAddr>,
    pub(crate) ever_meant: BTreeSet<IpAddr>,
    squats: Vec<(usize, IfIndex, Prefix)>,
    /// What stands in the store for all routers, beside the interface.
    defaults: Vec<(&'static str, &'static str)>,
}

/// The box's own addresses.
pub(crate) fn own(machine: usize) -> Vec<Prefix> {
    let number = machine + 1;
    let v4 = format!("10.0.0.{number}").parse().unwrap();
    let v6 = format!("fe80::{number:x}").parse().unwrap();
    vec![Prefix { ip: v4, len: 24 }, Prefix { ip: v6, len: 64 }]
}

/// Some of what most sites leave alone, in so many thousandths of them; from a stream of its own.
fn defaults(mut rng: Rng, thousandths: u64) -> Vec<(&'static str, &'static str)> {
    let mut rng = Rng::new(!rng.next());
    let mut all = Vec::new();
    for (key, values) in [
        ("carrier_delay", ["0.02", "0.3", "2"]),
        ("listen_first", ["0", "0.5", "3"]),
        ("preempt_delay", ["0.05", "0.5", "2"]),
        ("yield_on_send_errors", ["false"; 3]),
    ] {
        let value = values[usize::try_from(rng.below(3)).unwrap()];
        if rng.chance(thousandths) {
            all.push((key, value));
        }
    }
    all
}

/// What the store may do where a site says so: all that it does in good order.
const POLICY: &str = "[policy]\ninterfaces = [\"eth*\"]\n\
                      addresses = [\"10.0.0.0/24\", \"fe80::/64\", \"fd00::/64\"]\n";

impl Site {
    /// Makes up a site and starts its gateways.
    pub(crate) fn new(world: &mut World, rng: &mut Rng, way: Way) -> Self {
        // A hundred adverts a second cost as much to play as forty schedules of slower ones.
        let base = match rng.below(30) {
            0 => 1,
            1..15 => 10,
            _ => 100,
        };
        let machines = usize::try_from(2 + rng.below(2)).unwrap();
        let count = 1 + rng.below(3);
        let routers = (0..count).map(|at| Spec::new(rng, at, base, machines)).collect();
        let mut site = Self {
            routers,
            machines,
            local: "",
            unlisted: BTreeSet::new(),
            ever_unlisted: BTreeSet::new(),
            ever_dropped: BTreeSet::new(),
            ever_meant: BTreeSet::new(),
            squats: Vec::new(),
            defaults: defaults(rng.clone(), if way == Way::First { 250 } else { 400 }),
        };
        if way != Way::First {
            site.vary(Rng::new(rng.clone().next().rotate_left(32)), base);
        }
        if way == Way::Third {
            let mut rng = Rng::new(rng.clone().next().rotate_left(16));
            for spec in &mut site.routers {
                spec.change_lens(rng.below(1 << 30));
            }
        }
        site.put_back(world);
        for machine in 0..site.machines {
            let ppm = i64::try_from(rng.below(401)).unwrap() - DRIFT_MAX_PPM;
            let clock = Clock { offset_ns: rng.below(1_000_000_000_000), ppm };
            let name = NodeName::new(&format!("gw{machine}")).unwrap();
            world.join(&own(machine), clock, name, site.local);
        }
        site
    }

    /// Everything that the first way of drawing sites leaves as it is built in.
    fn vary(&mut self, mut rng: Rng, base: u64) {
        let rng = &mut rng;
        if rng.chance(60) {
            self.machines += 1;
            for spec in &mut self.routers {
                spec.priorities.push(50 + rng.below(200));
                spec.preempts.push(rng.chance(700));
            }
        }
        if rng.chance(150) {
            let count = self.routers.len() as u64;
            let more =
                (count..count + 1 + rng.below(2)).map(|at| Spec::new(rng, at, base, self.machines));
            let more: Vec<Spec> = more.collect();
            self.routers.extend(more);
        }
        for (at, spec) in self.routers.iter_mut().enumerate() {
            spec.vary(rng, at, base);
        }
        if rng.chance(400) {
            self.local = POLICY;
        }
    }

    /// What is special about it, for the count of what a run had.
    pub(crate) fn features(&self) -> BTreeSet<&'static str> {
        let mut all = BTreeSet::new();
        let mut has = |what: &'static str, is_so: bool| _ = is_so.then(|| all.insert(what));
        has("policy", !self.local.is_empty());
        has("four gateways", self.machines == 4);
        has("several routers", self.routers.len() > 1);
        has("five routers", self.routers.len() == 5);
        has(
            "different intervals",
            self.routers.iter().any(|spec| spec.usual != self.routers[0].usual),
        );
        for (key, value) in &self.defaults {
            has(key, *key != "listen_first");
            has("listen_first 0", (*key, *value) == ("listen_first", "0"));
            has("listen_first", *key == "listen_first" && *value != "0");
        }
        for spec in &self.routers {
            let has_owner = spec.priorities.contains(&255);
            has("priority 255", has_owner);
            has("no priority 255", !has_owner);
            has("preempt off", spec.preempts.contains(&false));
            has("preempt on", spec.preempts.contains(&true));
            has("IPv4", !spec.is_v6);
            has("IPv6", spec.is_v6);
            has("version 2", spec.version == 2);
            has("version 3", spec.version == 3);
            has("10 ms", spec.usual == 1);
            has("password", spec.password.is_some());
            has("vips_excluded", spec.excluded().next().is_some());
            has("several VIPs", spec.vips.len() > 1);
            has("VIPs with a network", spec.lens.iter().any(Option::is_some));
            for (key, _) in &spec.keys {
                has(key, true);
            }
        }
        all
    }

    /// The longest interval that there can be.
    pub(crate) fn unit(&self) -> Duration {
        let longest = self.routers.iter().map(|spec| 2 * spec.usual).max().unwrap_or(0);
        Duration::from_millis(longest * 10)
    }

    pub(crate) const fn machines(&self) -> usize {
        self.machines
    }

    fn pick(&self, roll: u64) -> usize {
        usize::try_from(roll / 7).unwrap() % self.routers.len()
    }

    /// Every VIP that a router is meant to have.
    pub(crate) fn vips(&self, router: usize) -> impl Iterator<Item = &IpAddr> {
        self.routers[router].vips.iter().chain(self.routers[router].excluded())
    }

    /// Whether a machine is meant to run a router.
    pub(crate) fn is_listed(&self, machine: usize, router: usize) -> bool {
        !self.unlisted.contains(&(machine, router))
    }

    fn keys(&self) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::new();
        let mut set =
            |path: String, value: String| _ = keys.insert(format!("/havip/{path}"), value);
        set("virtual_router/default/interface".into(), "eth0".into());
        for (key, value) in &self.defaults {
            set(format!("virtual_router/default/{key}"), (*value).to_owned());
        }
        for spec in &self.routers {
            let at = format!("virtual_router/{}", spec.name);
            let vips: Vec<String> = spec.vips.iter().map(|ip| spec.text(ip)).collect();
            set(format!("{at}/vips"), vips.join(","));
            set(format!("{at}/version"), spec.version.to_string());
            let interval = format!("{}.{:02}", spec.interval / 100, spec.interval % 100);
            let interval = interval.trim_end_matches("00").trim_end_matches('.');
            set(format!("{at}/advert_interval"), interval.to_owned());
            if spec.excluded.is_some() {
                let excluded: Vec<String> = spec.excluded().map(|ip| spec.text(ip)).collect();
                let none = excluded.is_empty().then(|| "none".to_owned());
                set(format!("{at}/vips_excluded"), none.unwrap_or_else(|| excluded.join(",")));
            }
            if let Some(password) = spec.password {
                set(format!("{at}/auth_pass"), format!("pass{password}"));
            }
            for (key, value) in &spec.keys {
                set(format!("{at}/{key}"), (*value).to_owned());
            }
        }
        for machine in 0..self.machines {
            let node = format!("node/gw{machine}");
            let listed: Vec<&str> = (0..self.routers.len())
                .filter(|router| self.is_listed(machine, *router))
                .map(|router| self.routers[router].name.as_str())
                .collect();
            let list = if listed.is_empty() { "none".to_owned() } else { listed.join(",") };
            set(format!("{node}/vrids"), list);
            for spec in &self.routers {
                let at = format!("{node}/virtual_router/{}", spec.name);
                set(format!("{at}/priority"), spec.priorities[machine].to_string());
                set(format!("{at}/preempt"), spec.preempts[machine].to_string());
            }
        }
        keys
    }

    /// Writes what differs from what is meant.
    pub(crate) fn put_back(&mut self, world: &mut World) {
        let meant = self.routers.iter().flat_map(|spec| spec.vips.iter().chain(spec.excluded()));
        self.ever_meant.extend(meant);
        let keys = self.keys();
        let extra = world.etcd.keys().into_iter().filter(|key| !keys.contains_key(key));
        let mut writes: Vec<(String, Option<&str>)> = extra.map(|key| (key, None)).collect();
        for (key, value) in &keys {
            if world.etcd.get(key) != Some(value) {
                writes.push((key.clone(), Some(value)));
            }
        }
        if !writes.is_empty() {
            world.etcd.write(writes);
            world.store_moved(false);
        }
    }

    pub(crate) fn empty(&mut self, world: &mut World) {
        let keys: Vec<_> = world.etcd.keys().into_iter().map(|key| (key, None)).collect();
        world.etcd.write(keys);
        world.store_moved(false);
    }

    pub(crate) fn restore(&mut self, world: &mut World, roll: u64) {
        let past = world.etcd.past();
        let Some(roll) = roll.checked_rem(past.len() as u64) else { return };
        let at = past[usize::try_from(roll).unwrap()];
        world.etcd.restore(at, roll.is_multiple_of(3));
        world.store_moved(true);
    }

    pub(crate) fn spoil(&mut self, world: &mut World, roll: u64) {
        let name = &self.routers[self.pick(roll)].name;
        let bad = [
            ("vips", "10.0.0.300"),
            ("vips", ""),
            ("advert_interval", "soon"),
            ("version", "4"),
            ("interface", "a/b"),
            ("no_such_key", "1"),
        ];
        let (key, value) = bad[usize::try_from(roll % 6).unwrap()];
        world.etcd.write([(format!("/havip/virtual_router/{name}/{key}"), Some(value))]);
        world.store_moved(false);
    }

    pub(crate) fn unlist(&mut self, world: &mut World, machine: usize, roll: u64) {
        let router = self.pick(roll);
        self.unlisted.insert((machine, router));
        self.ever_unlisted.insert((machine, self.routers[router].name.clone()));
        self.put_back(world);
    }

    pub(crate) fn list_again(&mut self, world: &mut World, machine: usize) {
        self.unlisted.retain(|(of, _)| *of != machine);
        self.put_back(world);
    }

    pub(crate) fn set_priority(&mut self, world: &mut World, machine: usize, roll: u64) {
        let router = self.pick(roll);
        // An owner is one by the addresses that it has, and there is no second one.
        if self.routers[router].priorities[machine] != 255 {
            self.routers[router].priorities[machine] = 1 + roll % 254;
        }
        self.put_back(world);
    }

    pub(crate) fn set_preempt(&mut self, world: &mut World, machine: usize, roll: u64) {
        let router = self.pick(roll);
        let preempts = &mut self.routers[router].preempts[machine];
        *preempts = !*preempts;
        self.put_back(world);
    }

    pub(crate) fn set_interval(&mut self, world: &mut World, roll: u64) {
        let router = self.pick(roll);
        let Spec { interval, usual, .. } = &mut self.routers[router];
        *interval = if interval == usual { 2 * *usual } else { *usual };
        self.put_back(world);
    }

    /// One VIP more, or the last one less.
    pub(crate) fn change_vips(&mut self, world: &mut World, roll: u64) {
        let router = self.pick(roll);
        let spec = &mut self.routers[router];
        if spec.vips.len() > 1 {
            self.ever_dropped.extend(spec.vips.pop());
        } else {
            spec.vips.push(spec.vip(router, 1));
        }
        self.put_back(world);
    }

    /// One VIP more that is not advertised, or the last one less.
    pub(crate) fn change_excluded(&mut self, world: &mut World, roll: u64) {
        let router = self.pick(roll);
        let spec = &mut self.routers[router];
        let vip = spec.other(router, roll % 2);
        let excluded = spec.excluded.get_or_insert_default();
        match excluded.pop() {
            Some(vip) => _ = self.ever_dropped.insert(vip),
            None => excluded.push(vip),
        }
        self.put_back(world);
    }

    /// Another prefix length for the VIPs of one router.
    pub(crate) fn change_lens(&mut self, world: &mut World, roll: u64) {
        let router = self.pick(roll);
        self.routers[router].change_lens(roll);
        self.put_back(world);
    }

    /// A stranger has an address with the IP of a VIP, or of its network, of any prefix length,
    /// for ever or for a while; or makes the one that is there his own. The kernel may refuse.
    pub(crate) fn add_other(&mut self, world: &mut World, machine: usize, roll: u64) {
        let (index, host) = self.place(world, machine, roll);
        let until = match (roll / 11) % 3 {
            0 => None,
            rest => Some(world.now() + Duration::from_millis(300 * rest + roll % 5_000)),
        };
        let (kernel, _) = world.kernel(machine);
        if !kernel.is_running(index) {
            return;
        }
        let lens: &[u8] = if host.ip.is_ipv4() { &[32, 25, 24, 16] } else { &[128, 96, 64] };
        let len = lens[usize::try_from(roll / 101).unwrap() % lens.len()];
        // One in four is a neighbour of the VIP in its network.
        let neighbour: IpAddr = match host.ip {
            _ if !roll.is_multiple_of(4) => host.ip,
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() | 0x5).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() | 0x5000).into(),
        };
        let prefix = Prefix { ip: neighbour, len };
        if (roll / 7).is_multiple_of(5) && kernel.take_over(index, host.ip, until) {
            let prefix = kernel.holder(index, host.ip).map_or(host, |address| address.prefix);
            self.squats.push((machine, index, prefix));
        } else if kernel.add_other(index, prefix, until) {
            self.squats.push((machine, index, prefix));
        }
    }

    /// Another password for all who have one, as well as the store can bring it to them.
    pub(crate) fn change_passwords(&mut self, world: &mut World, roll: u64) {
        for spec in &mut self.routers {
            spec.password = spec.password.map(|_| roll % 1_000);
        }
        self.put_back(world);
    }

    /// The store asks for what no box allows, or, where there is a policy, for what that forbids.
    pub(crate) fn forbid(&self, world: &mut World, roll: u64) {
        let name = &self.routers[self.pick(roll)].name;
        let forbidden = [
            ("interface", "lo"),
            ("vips_excluded", "12.0.0.1/4"),
            ("vips_excluded", "192.0.2.1"),
            ("interface", "wan0"),
        ];
        let count = if self.local.is_empty() { 2 } else { 4 };
        let (key, value) = forbidden[usize::try_from(roll % count).unwrap()];
        world.etcd.write([(format!("/havip/virtual_router/{name}/{key}"), Some(value))]);
        world.store_moved(false);
    }

    fn place(&self, world: &mut World, machine: usize, roll: u64) -> (IfIndex, Prefix) {
        let vips: Vec<IpAddr> = self.vips(self.pick(roll)).copied().collect();
        let vip = vips[usize::try_from(roll).unwrap() % vips.len()];
        (world.kernel(machine).1, Prefix::host(vip))
    }

    pub(crate) fn delete_vip(&self, world: &mut World, machine: usize, roll: u64) {
        let (index, prefix) = self.place(world, machine, roll);
        world.kernel(machine).0.remove_address(index, prefix);
    }

    /// A stranger has an address that is a VIP, where it is free.
    pub(crate) fn squat(&mut self, world: &mut World, machine: usize, roll: u64) {
        let (index, prefix) = self.place(world, machine, roll);
        let (kernel, _) = world.kernel(machine);
        if kernel.is_running(index) && kernel.address(index, prefix).is_none() {
            kernel.add_own_address(index, prefix);
            self.squats.push((machine, index, prefix));
        }
    }

    pub(crate) fn unsquat(&mut self, world: &mut World, machine: usize) {
        let (gone, kept) =
            std::mem::take(&mut self.squats).into_iter().partition(|s| s.0 == machine);
        self.squats = kept;
        let gone: Vec<(usize, IfIndex, Prefix)> = gone;
        for (_, index, prefix) in gone {
            let (kernel, _) = world.kernel(machine);
            // What was taken over meanwhile is the stranger's no more.
            if kernel.marked().all(|(at, of, _)| (at, of) != (index, prefix)) {
                kernel.remove_address(index, prefix);
            }
        }
    }

    pub(crate) fn recreate(&self, world: &mut World, machine: usize) {
        let (kernel, index) = world.kernel(machine);
        if !kernel.exists(index) {
            world.recreate_link(machine, &own(machine));
        }
    }

    /// Something is told to whoever listens to the kernel.
    pub(crate) fn touch_kernel(&self, world: &mut World, machine: usize) {
        let (kernel, index) = world.kernel(machine);
        kernel.touch(index);
    }
}

impl Spec {
    fn new(rng: &mut Rng, at: u64, base: u64, machines: usize) -> Self {
        let is_v6 = rng.chance(250);
        let version = if !is_v6 && base == 100 && rng.chance(250) { 2 } else { 3 };
        let mut spec = Self {
            name: (51 + at).to_string(),
            is_v6,
            version,
            usual: base,
            interval: base,
            vips: Vec::new(),
            excluded: None,
            lens: [None; 2],
            password: None,
            keys: Vec::new(),
            priorities: (0..machines).map(|_| 50 + rng.below(200)).collect(),
            preempts: (0..machines).map(|_| rng.chance(700)).collect(),
        };
        spec.vips.push(spec.vip(usize::try_from(at).unwrap(), 0));
        spec
    }

    fn vary(&mut self, rng: &mut Rng, at: usize, base: u64) {
        // The ends of the range, too.
        if let (true, Some(name)) = (rng.chance(100), ["1", "255"].get(at)) {
            self.name = (*name).to_owned();
        }
        self.usual = base * [1, 1, 2, 3][usize::try_from(rng.below(4)).unwrap()];
        self.interval = self.usual;
        self.version = if !self.is_v6 && self.usual >= 100 && rng.chance(500) { 2 } else { 3 };
        if self.version == 2 {
            self.password = rng.chance(600).then(|| rng.below(1_000));
            if rng.chance(300) {
                self.keys.push(("profile", "original"));
            }
        } else if !self.is_v6 && rng.chance(300) {
            let forms = ["rfc9568", "pseudo_header", "both"];
            self.keys.push(("checksum", forms[usize::try_from(rng.below(3)).unwrap()]));
        }
        for number in 1..=usize::try_from(rng.below(3)).unwrap() {
            self.vips.push(self.vip(at, number));
        }
        let first = rng.below(2);
        let numbers = first..first + [0, 0, 0, 1, 2][usize::try_from(rng.below(5)).unwrap()];
        self.excluded = Some(numbers.map(|number| self.other(at, number)).collect());
        if rng.chance(200) {
            let owner = usize::try_from(rng.below(self.priorities.len() as u64)).unwrap();
            self.priorities[owner] = 255;
        }
        if rng.chance(150) {
            let seconds = ["3", "6", "20"][usize::try_from(rng.below(3)).unwrap()];
            self.keys.push(("address_lifetime", seconds));
        }
    }

    fn change_lens(&mut self, roll: u64) {
        let of = |lens: [Option<u8>; 4], at: u64| lens[usize::try_from(at % 4).unwrap()];
        self.lens = [
            of([None, Some(24), Some(25), Some(24)], roll / 13),
            of([None, Some(64), Some(96), Some(64)], roll / 53),
        ];
    }

    /// As it is configured.
    fn text(&self, ip: &IpAddr) -> String {
        match self.lens[usize::from(ip.is_ipv6())] {
            Some(len) => format!("{ip}/{len}"),
            None => ip.to_string(),
        }
    }

    fn excluded(&self) -> impl Iterator<Item = &IpAddr> {
        self.excluded.iter().flatten()
    }

    /// A VIP that is not advertised; by its number of either family.
    fn other(&self, router: usize, number: u64) -> IpAddr {
        let last = 200 + 10 * router + usize::try_from(number).unwrap();
        let is_v6 = number.is_multiple_of(2) == self.is_v6;
        let text = if is_v6 { format!("fd00::{last}") } else { format!("10.0.0.{last}") };
        text.parse().unwrap()
    }

    fn vip(&self, router: usize, number: usize) -> IpAddr {
        let last = 100 + 10 * router + number;
        let text = if self.is_v6 { format!("fe80::{last}") } else { format!("10.0.0.{last}") };
        text.parse().unwrap()
    }
}
