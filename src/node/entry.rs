//! One router with everything that the node keeps for it: where it runs, what it sends, what it
//! heard, what it counts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Instant;
use super::faults::Unplaced;
use super::kernel::Port;
use super::links::Place;
use super::notice::NotReady;
use super::overhear::Shadow;
use super::rivals::Rivals;
use super::router::{Heard, Reason, Router, State, Waiting};
use super::source::Fit;
use crate::config::{self, ChecksumMode, Prefix};
use crate::wire::vrrp::{AdvertSpec, Auth, Centis, RxMeta, SumForm, Version, max_addresses};
use crate::wire::{Family, IfIndex, Mac};

/// Peers that are remembered: more than ever share a VRID.
pub(super) const PEERS_MAX: usize = 16;
/// Bytes of an advert that is remembered whole; those with more addresses are checked each time.
const USUAL_MAX: usize = 256;

/// A router's number in this process; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub(super) u64);

/// Counters of one router; names follow RFC 6527 and RFC 8347 where they have one.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Times it became active.
    pub master_transitions: u64,
    /// Adverts sent, priority 0 included.
    pub adverts_sent: u64,
    /// Valid adverts received.
    pub adverts_received: u64,
    /// Adverts of priority 0 sent.
    pub priority_zero_sent: u64,
    /// Adverts of priority 0 received.
    pub priority_zero_received: u64,
    /// Adverts whose interval is another: discarded in version 2, learned in version 3.
    pub interval_errors: u64,
    /// Adverts whose addresses are others; accepted if any of ours is among them.
    pub address_list_errors: u64,
    /// Adverts in another version; discarded.
    pub version_errors: u64,
    /// Adverts of another authentication type or with another password; discarded.
    pub auth_errors: u64,
    /// Adverts of another version, authentication, interval or VRID that name our addresses.
    pub misconfigured: u64,
    /// Adverts for this VRID that name none of them, of others than name them a moment before.
    pub foreign_cluster: u64,
    /// Losing adverts answered while active: at most one each eighth of an interval.
    pub conflicts_won: u64,
    /// Times another said, by ARP or NA, that a VIP of this active router is his.
    pub address_conflicts: u64,
    /// Gratuitous ARP and unsolicited NA sent.
    pub announcements: u64,
    /// Times it asked who else has one of its VIPs.
    pub probes: u64,
    /// VIPs put back after someone took them away.
    pub restored: u64,
    /// Adverts that left more than half an interval late.
    pub late_adverts: u64,
    /// Packets of adverts that could not be sent.
    pub adverts_unsent: u64,
    /// Times it gave way by itself: its adverts could not be sent, or someone fought for a VIP.
    pub gave_way: u64,
    /// Timers that fired so late that others may have acted meanwhile.
    pub overslept: u64,
    /// Packets with our own source address.
    pub own_packets: u64,
}

/// The last advert heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastHeard {
    pub(super) src: IpAddr,
    pub(super) priority: u8,
    pub(super) at: Instant,
}

/// The last accepted advert, if there was nothing to say about it: the next one is the same, as a
/// rule, and then nothing about it has to be found out again.
struct Usual {
    meta: RxMeta,
    bytes: Vec<u8>,
    heard: Heard,
}

// An advert may say that it has no password and still end in one.
impl fmt::Debug for Usual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { meta, bytes, heard } = self;
        let length = bytes.len();
        f.debug_struct("Usual")
            .field("meta", meta)
            .field("length", &length)
            .field("heard", heard)
            .finish()
    }
}

/// What a router waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Its state machine's next step.
    Router,
    /// The renewal of its addresses.
    Renew,
    /// Another look at whether it may take part.
    Look,
}

impl Timer {
    pub(super) const ALL: [Self; 3] = [Self::Router, Self::Renew, Self::Look];
}

/// When each of them is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines {
    router: Option<Instant>,
    renew: Option<Instant>,
    look: Option<Instant>,
}

impl Deadlines {
    pub(super) const fn of(&mut self, timer: Timer) -> &mut Option<Instant> {
        match timer {
            Timer::Router => &mut self.router,
            Timer::Renew => &mut self.renew,
            Timer::Look => &mut self.look,
        }
    }
}

/// A router and what belongs to it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) router: Router,
    /// The interface, while it exists.
    pub(super) link: Option<IfIndex>,
    /// The sockets that it needs.
    pub(super) port: Option<Port>,
    /// The address that adverts are sent from, and why it is that one.
    pub(super) source: Option<IpAddr>,
    pub(super) source_fit: Option<Fit>,
    /// The last one that there was.
    pub(super) last_source: Option<IpAddr>,
    /// Bytes that fit through the link.
    pub(super) mtu: u32,
    /// Its MAC address.
    pub(super) mac: Option<Mac>,
    /// Times that it was lost, when this router was looked at last.
    pub(super) lost: u32,
    /// VIPs that fit into no advert, as it was told last.
    pub(super) not_advertised_said: usize,
    /// The membership was proved since an advert was heard.
    pub(super) proved: bool,
    /// Why it does not take part; `None`: it does.
    pub(super) not_ready: Option<NotReady>,
    /// Whether that was said already.
    pub(super) not_ready_said: bool,
    /// Places claimed at the moment, in configured order.
    pub(super) places: Vec<Place>,
    /// VIPs that no host of the interface's subnets can have, and why.
    pub(super) unfit: BTreeMap<IpAddr, &'static str>,
    /// Seconds that the kernel keeps them.
    pub(super) lifetime: Option<u32>,
    /// When they are renewed next.
    pub(super) renew_at: Option<Instant>,
    /// Adverts in a row that could not be sent, and whether the last one was among them.
    pub(super) unsent: u32,
    pub(super) last_unsent: bool,
    /// What became of its VIPs that the kernel does not take.
    pub(super) unplaced: Unplaced,
    /// Since when its link is lost while it bears that.
    pub(super) link_lost_at: Option<Instant>,
    /// It gave way, and stays away until then.
    pub(super) held_off: Option<(Instant, NotReady)>,
    /// When it is to be looked at again for either; a claim that is to be judged has a time of its
    /// own.
    pub(super) look_at: Option<Instant>,
    /// Where this entry stands in the index of deadlines: at [`Self::deadlines`] or before them.
    pub(super) timers: Deadlines,
    /// Since when the state is what it is, and why.
    pub(super) since: Instant,
    pub(super) reason: Option<Reason>,
    pub(super) heard: Option<LastHeard>,
    usual: Option<Usual>,
    /// Who else has what this router has.
    pub(super) rivals: Rivals,
    /// Whether someone's adverts may come from an address of this router.
    pub(super) shadow: Shadow,
    /// In its present state, and not active, it heard an advert through the IP layer.
    pub(super) delivered: bool,
    /// The checksum form last heard, and who sends which.
    pub(super) sum_heard: Option<SumForm>,
    pub(super) sums: BTreeMap<IpAddr, SumForm>,
    pub(super) counters: Counters,
    frames: Vec<Vec<u8>>,
    /// Those with priority 0, for the will: made and forgotten together with the others.
    farewell: Vec<Vec<u8>>,
}

impl Entry {
    pub(super) fn new(config: Arc<config::Router>, now: Instant) -> Self {
        Self {
            router: Router::new(config),
            link: None,
            port: None,
            source: None,
            source_fit: None,
            last_source: None,
            mtu: 0,
            mac: None,
            lost: 0,
            not_advertised_said: 0,
            proved: false,
            not_ready: Some(NotReady::Starting),
            not_ready_said: false,
            places: Vec::new(),
            unfit: BTreeMap::new(),
            lifetime: None,
            renew_at: None,
            unsent: 0,
            last_unsent: false,
            unplaced: Unplaced::default(),
            link_lost_at: None,
            held_off: None,
            look_at: None,
            timers: Deadlines::default(),
            since: now,
            reason: None,
            heard: None,
            usual: None,
            rivals: Rivals::default(),
            shadow: Shadow::None,
            delivered: false,
            sum_heard: None,
            sums: BTreeMap::new(),
            counters: Counters::default(),
            frames: Vec::new(),
            farewell: Vec::new(),
        }
    }

    /// What this router should have now, with the configured prefix lengths.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (Place, u8)> {
        let index = self.link.filter(|_| self.router.is_active());
        let config = self.router.config();
        let vips = config.vips.iter().chain(&config.vips_excluded);
        vips.filter_map(move |vip| Some(((index?, Prefix::host(vip.ip)), vip.len)))
    }

    /// When something is due.
    pub(super) fn deadlines(&self) -> Deadlines {
        let judge_at = self.rivals.claim.map(|claim| claim.judge_at);
        let at = [self.look_at, judge_at, self.prove_at(), self.stray_at()];
        let look = at.into_iter().flatten().min();
        Deadlines { router: self.router.next_deadline(), renew: self.renew_at, look }
    }

    /// When the silence of an active router that was heard is long enough to ask whether this
    /// router hears at all: in time to hear the next advert if it did not.
    pub(super) fn prove_at(&self) -> Option<Instant> {
        let State::Backup { active_down_at, waiting, .. } = self.router.state() else {
            return None;
        };
        if self.proved || !matches!(waiting, Waiting::Accepted | Waiting::Guarded) {
            return None;
        }
        // One and a half intervals; with every advert this is asked for, and nothing is divided.
        let Centis(centis) = self.router.active_adver_interval();
        Some(active_down_at.before(Duration::from_millis(u64::from(centis) * 15)))
    }

    /// Name of the state as operators and RFC 9568 have it.
    pub(super) const fn state_name(&self) -> &'static str {
        state_name(self.router.state())
    }

    /// The authentication that this router sends and accepts.
    pub(super) fn auth(&self) -> Auth {
        auth_of(self.router.config())
    }

    /// The complete adverts to send, one for each checksum form in use; made once and kept until
    /// [`Self::forget_frames`].
    pub(super) fn frames(&mut self) -> &[Vec<u8>] {
        if self.frames.is_empty()
            && let Some(source) = self.source
        {
            let priority = self.router.config().priority.number();
            self.frames = self.make_frames(source, priority);
            self.farewell = self.make_frames(source, 0);
        }
        &self.frames
    }

    /// The complete adverts that give up: priority 0.
    pub(super) fn farewell(&self) -> Cow<'_, [Vec<u8>]> {
        match self.source {
            Some(source) if self.farewell.is_empty() => Cow::Owned(self.make_frames(source, 0)),
            Some(_) => Cow::Borrowed(&self.farewell),
            None => Cow::Borrowed(&[]),
        }
    }

    /// Something that adverts are made of has changed.
    pub(super) fn forget_frames(&mut self) {
        self.frames.clear();
        self.farewell.clear();
        self.usual = None;
    }

    /// Counts an advert that takes part in the election.
    pub(super) const fn note_heard(&mut self, now: Instant, heard: Heard) {
        self.rivals.elected();
        self.unplaced.alone &= heard.priority == 0;
        self.proved = false;
        self.counters.adverts_received += 1;
        let Heard { src, priority, .. } = heard;
        if priority == 0 {
            self.counters.priority_zero_received += 1;
        }
        self.heard = Some(LastHeard { src, priority, at: now });
    }

    /// Remembers the advert just accepted if there was nothing to say about it, `plain`.
    pub(super) fn note_usual(&mut self, plain: bool, meta: &RxMeta, bytes: &[u8], heard: Heard) {
        if !plain || bytes.len() > USUAL_MAX {
            self.usual = None;
            return;
        }
        let mut kept = self.usual.take().map(|usual| usual.bytes).unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(bytes);
        self.usual = Some(Usual { meta: *meta, bytes: kept, heard });
    }

    /// What an advert says that is, to the last bit, the one remembered.
    pub(super) fn usual(&self, meta: &RxMeta, bytes: &[u8]) -> Option<Heard> {
        let usual = self.usual.as_ref()?;
        (usual.bytes == bytes && usual.meta == *meta).then_some(usual.heard)
    }

    #[cfg(test)]
    pub(super) const fn remembers(&self) -> bool {
        self.usual.is_some()
    }

    #[cfg(test)]
    pub(super) fn forget_usual(&mut self) {
        self.usual = None;
    }

    /// Whether every deadline may stay where it stands in the index.
    pub(super) fn is_timed(&self) -> bool {
        let (mut deadlines, mut timers) = (self.deadlines(), self.timers);
        Timer::ALL.into_iter().all(|timer| stands(*deadlines.of(timer), *timers.of(timer)))
    }

    /// Packets made and kept.
    pub(super) fn kept(&self) -> usize {
        self.frames.len() + self.farewell.len()
    }

    /// VIPs that an advert through this link has no room for.
    pub(super) fn not_advertised(&self) -> usize {
        let config = self.router.config();
        config.vips.len().saturating_sub(self.capacity())
    }

    fn capacity(&self) -> usize {
        let config = self.router.config();
        max_addresses(config.version, config.family, self.mtu)
    }

    fn make_frames(&self, source: IpAddr, priority: u8) -> Vec<Vec<u8>> {
        let config = self.router.config();
        let addresses: Vec<IpAddr> =
            config.vips.iter().take(self.capacity()).map(|prefix| prefix.ip).collect();
        let frame = |sum: SumForm| {
            let mut bytes = Vec::new();
            let spec = AdvertSpec {
                version: config.version,
                vrid: config.vrid,
                priority,
                interval: config.advert_interval,
                auth: auth_of(config),
                addresses: &addresses,
                sum,
            };
            spec.emit_packet(source, &mut bytes);
            bytes
        };
        if config.version == Version::V2 || config.family == Family::V6 {
            return vec![frame(SumForm::PseudoHeader)];
        }
        match config.checksum {
            ChecksumMode::Auto => vec![frame(self.sum_heard.unwrap_or(SumForm::PseudoHeader))],
            ChecksumMode::Both => vec![frame(SumForm::PseudoHeader), frame(SumForm::Message)],
            ChecksumMode::PseudoHeader => vec![frame(SumForm::PseudoHeader)],
            ChecksumMode::Rfc9568 => vec![frame(SumForm::Message)],
        }
    }

    /// Notes the checksum form that `src` sends; returns whether it serves all who were heard
    /// and whether our own adverts change with it.
    pub(super) fn note_sum(&mut self, src: IpAddr, sum: SumForm) -> SumNoted {
        if self.sums.len() < PEERS_MAX || self.sums.contains_key(&src) {
            self.sums.insert(src, sum);
        }
        let auto = self.router.config().checksum == ChecksumMode::Auto;
        let changed = auto && self.sum_heard != Some(sum);
        self.sum_heard = Some(sum);
        if changed {
            self.forget_frames();
        }
        SumNoted { changed, mixed: auto && changed && self.sums.values().any(|form| *form != sum) }
    }
}

/// Whether a deadline may stay where it stands in the index.
pub(super) fn stands(deadline: Option<Instant>, at: Option<Instant>) -> bool {
    deadline == at || deadline.zip(at).is_some_and(|(deadline, at)| deadline > at)
}

/// What noting a checksum form showed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SumNoted {
    /// Our own adverts have another form from now on.
    pub(super) changed: bool,
    /// Peers that send different forms were heard, and one form is all that is sent.
    pub(super) mixed: bool,
}

pub(super) const fn state_name(state: State) -> &'static str {
    match state {
        State::Initialize => "initialize",
        State::Backup { .. } => "backup",
        State::Active { .. } => "active",
    }
}

fn auth_of(config: &config::Router) -> Auth {
    match &config.auth_pass {
        Some(secret) if config.version == Version::V2 => {
            // RFC 2338 §5.3.10: left-justified, padded with zeros.
            let mut data = [0; 8];
            for (to, from) in data.iter_mut().zip(secret.reveal().bytes()) {
                *to = from;
            }
            Auth::Simple(data)
        }
        Some(_) | None => Auth::None,
    }
}
