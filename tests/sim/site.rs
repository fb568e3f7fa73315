//! A site that a seed makes up: gateways, routers, and what the store says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use havip::config::{NodeName, Prefix};
use havip::sim::{Clock, DRIFT_MAX_PPM, Rng, World};
use havip::wire::IfIndex;

/// One virtual router as it is meant to be.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) is_v6: bool,
    version: u8,
    /// Centiseconds.
    interval: u64,
    vips: Vec<IpAddr>,
    /// By machine.
    priorities: Vec<u64>,
    preempts: Vec<bool>,
}

/// The site, as its operator means it, and what was done to it on purpose.
pub(crate) struct Site {
    pub(crate) routers: Vec<Spec>,
    machines: usize,
    /// The shortest interval, in centiseconds.
    base: u64,
    unlisted: BTreeSet<(usize, usize)>,
    /// Everything that was ever taken out by word.
    pub(crate) ever_unlisted: BTreeSet<(usize, String)>,
    /// VIPs that were ever taken away by word.
    pub(crate) ever_dropped: BTreeSet<IpAddr>,
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

/// Some of what most sites leave alone; from a stream of its own.
fn defaults(mut rng: Rng) -> Vec<(&'static str, &'static str)> {
    let mut rng = Rng::new(!rng.next());
    let mut all = Vec::new();
    for (key, values) in [
        ("carrier_delay", ["0.02", "0.3", "2"]),
        ("listen_first", ["0", "0.5", "3"]),
        ("preempt_delay", ["0.05", "0.5", "2"]),
        ("yield_on_send_errors", ["false"; 3]),
    ] {
        let value = values[usize::try_from(rng.below(3)).unwrap()];
        if rng.chance(250) {
            all.push((key, value));
        }
    }
    all
}

impl Site {
    /// Makes up a site and starts its gateways.
    pub(crate) fn new(world: &mut World, rng: &mut Rng) -> Self {
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
            base,
            unlisted: BTreeSet::new(),
            ever_unlisted: BTreeSet::new(),
            ever_dropped: BTreeSet::new(),
            squats: Vec::new(),
            defaults: defaults(rng.clone()),
        };
        site.put_back(world);
        for machine in 0..machines {
            let ppm = i64::try_from(rng.below(401)).unwrap() - DRIFT_MAX_PPM;
            let clock = Clock { offset_ns: rng.below(1_000_000_000_000), ppm };
            let name = NodeName::new(&format!("gw{machine}")).unwrap();
            world.join(&own(machine), clock, name);
        }
        site
    }

    /// The longest interval that there can be.
    pub(crate) fn unit(&self) -> Duration {
        Duration::from_millis(self.base * 20)
    }

    pub(crate) const fn machines(&self) -> usize {
        self.machines
    }

    fn pick(&self, roll: u64) -> usize {
        usize::try_from(roll / 7).unwrap() % self.routers.len()
    }

    /// Every VIP that a router is meant to have.
    pub(crate) fn vips(&self, router: usize) -> &[IpAddr] {
        &self.routers[router].vips
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
            let vips: Vec<String> = spec.vips.iter().map(ToString::to_string).collect();
            set(format!("{at}/vips"), vips.join(","));
            set(format!("{at}/version"), spec.version.to_string());
            let interval = format!("{}.{:02}", spec.interval / 100, spec.interval % 100);
            let interval = interval.trim_end_matches("00").trim_end_matches('.');
            set(format!("{at}/advert_interval"), interval.to_owned());
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
        self.routers[router].priorities[machine] = 1 + roll % 254;
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
        let interval = &mut self.routers[router].interval;
        *interval = if *interval == self.base { 2 * self.base } else { self.base };
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

    fn place(&self, world: &mut World, machine: usize, roll: u64) -> (IfIndex, Prefix) {
        let vips = &self.routers[self.pick(roll)].vips;
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
            interval: base,
            vips: Vec::new(),
            priorities: (0..machines).map(|_| 50 + rng.below(200)).collect(),
            preempts: (0..machines).map(|_| rng.chance(700)).collect(),
        };
        spec.vips.push(spec.vip(usize::try_from(at).unwrap(), 0));
        spec
    }

    fn vip(&self, router: usize, number: usize) -> IpAddr {
        let last = 100 + 10 * router + number;
        let text = if self.is_v6 { format!("fe80::{last}") } else { format!("10.0.0.{last}") };
        text.parse().unwrap()
    }
}
