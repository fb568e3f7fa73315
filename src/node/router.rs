//! One virtual router's state machine: RFC 9568 §6, and RFC 3768 §6 for version 2.
//!
//! ```text
//!                 Startup, priority 255      +--------+
//!            +------------------------------>|        |
//!            |                               | Active |
//!            |     +--------------------------|        |
//!            |     |     Shutdown            +--------+
//!            |     v                           |    ^
//!         +------------+        higher advert  |    |  Active_Down_Timer
//!         | Initialize |                       v    |
//!         +------------+   Startup           +--------+
//!            ^     |------------------------>|        |
//!            |                               | Backup |
//!            +-------------------------------|        |
//!                        Shutdown            +--------+
//! ```
//!
//! It decides; it holds no packet, socket or address. Deadlines live in the state that owns them,
//! so a stale timer cannot exist, and a `Timeout` before the deadline changes nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Instant;
use crate::config;
use crate::wire::vrrp::{Centis, Priority, Version, active_down_interval, skew_time};

/// Largest step by which an advert goes early to fall in with others (see [`Router::next_advert`]).
const EARLY_MAX: Duration = Duration::from_millis(2);

/// State of a virtual router (RFC 9568 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not taking part: its interface, address or socket is missing, or it is stopped.
    Initialize,
    /// Listening to the active router.
    Backup {
        /// Active_Down_Timer: when this router takes over.
        active_down_at: Instant,
        /// Since a lower-priority active router was first heard: when it is taken over from.
        preempt_at: Option<Instant>,
        /// What the timer waits for.
        waiting: Waiting,
    },
    /// Advertising, and holding the addresses.
    Active {
        /// Adver_Timer: when the next advert is due.
        adver_at: Instant,
    },
}

/// Why a backup would take over if its timer fired now; becomes the reason of the transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing was heard since the start.
    Silence,
    /// An active router that this one accepts was heard, and must first fall silent.
    Accepted,
    /// The active router gave up with priority 0.
    Resigned,
    /// A lower-priority active router is there, and this one preempts.
    Preempting,
    /// A router of ours that is configured otherwise holds the addresses; not taken over.
    Guarded,
    /// The timer fired so late that this process must have been stopped: listening once more.
    Overslept,
}

/// Something that happened to this router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Interface, address and sockets are there.
    Startup,
    /// One of them went, or the router or the daemon is to stop.
    Shutdown,
    /// An advert that passed every check and is meant for this router.
    Advert(Heard),
    /// An advert naming this router's addresses, but in another version, with other
    /// authentication or (version 2) another interval.
    Misconfigured(Heard),
    /// Time passed.
    Timeout,
}

/// What matters of a received advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The sender's primary address.
    pub src: IpAddr,
    /// 0 when the sender gives up.
    pub priority: u8,
    /// The sender's interval.
    pub interval: Centis,
}

/// What follows from an input, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send an ADVERTISEMENT with this priority.
    Advertise(u8),
    /// Became active: addresses to the interface, then announce them.
    Activated(Reason),
    /// Is active no more: addresses away.
    Deactivated(Reason),
    /// Left Initialize for Backup, or Backup for Initialize.
    Moved(Reason),
    /// Was and stays active, but others may have learned otherwise: announce the addresses again.
    Reannounce(Reason),
    /// A losing advert was heard while active, answered or not.
    Won(Heard),
    /// A misconfigured advert was heard while backup or active.
    Guarding,
    /// The advert goes out more than half an interval late.
    Late,
    /// The timer fired late by this much; listening once more before taking over.
    Overslept(Duration),
}

/// Why a state changed, or an announcement is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Ready to take part.
    Startup,
    /// Priority 255 takes its own addresses at once.
    Owner,
    /// No active router was heard for Active_Down_Interval.
    NoResponse,
    /// The active router sent priority 0.
    Resigned,
    /// This router has the higher priority and preempts.
    Preempted,
    /// An advert of higher priority, or of equal priority and higher address, came from here.
    Outranked(IpAddr),
    /// A losing advert came from here: the sender thought itself active.
    ConflictWon(IpAddr),
    /// This process did not run for longer than others wait.
    Overslept,
    /// Adverts that could not be sent for longer than others wait can be again.
    SendsAgain,
    /// The link was lost for a moment, and with it what switches had learned.
    LinkBack,
    /// The interface got another MAC address: what hosts have learned is wrong.
    NewMac,
    /// Interface, address or socket went, or the router or the daemon stops.
    Shutdown,
}

/// A virtual router.
#[derive(Clone, Debug)]
pub struct Router {
    config: Arc<config::Router>,
    state: State,
    /// Active_Adver_Interval (RFC 9568 §6.1): learned from the active router.
    active_adver_interval: Centis,
    /// When this router last answered an advert out of turn.
    answered_at: Option<Instant>,
    /// Until when it listens before it may take over out of silence.
    listens_until: Instant,
    /// Where in each interval adverts fall, with more than one router on a link.
    slot: Option<Duration>,
}

impl Router {
    /// A router in Initialize.
    #[must_use]
    pub fn new(config: Arc<config::Router>) -> Self {
        let active_adver_interval = config.advert_interval;
        Self {
            config,
            state: State::Initialize,
            active_adver_interval,
            answered_at: None,
            listens_until: Instant::ZERO,
            slot: None,
        }
    }

    /// Its configuration.
    #[must_use]
    pub const fn config(&self) -> &Arc<config::Router> {
        &self.config
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Active_Adver_Interval: what the active router advertises with, as far as this one knows.
    #[must_use]
    pub const fn active_adver_interval(&self) -> Centis {
        self.active_adver_interval
    }

    /// Whether it holds the addresses.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    /// When the next `Timeout` does something; must be read again after every call that takes
    /// `&mut self`.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Initialize => None,
            State::Backup { active_down_at, .. } => Some(active_down_at),
            State::Active { adver_at } => Some(adver_at),
        }
    }

    /// Puts its adverts at `slot` in each interval, so that many routers share a wake-up.
    pub const fn set_slot(&mut self, slot: Option<Duration>) {
        self.slot = slot;
    }

    /// Takes `input` at `now` and appends what follows to `out`. `local` is the primary address
    /// that adverts are sent from; it decides between equal priorities.
    pub fn handle(&mut self, now: Instant, local: IpAddr, input: Input, out: &mut Vec<Effect>) {
        match (self.state, input) {
            // RFC 9568 §6.4.1 (Initialize)
            (State::Initialize, Input::Startup) => {
                self.active_adver_interval = self.config.advert_interval;
                if self.config.priority == Priority::OWNER {
                    self.become_active(now, Reason::Owner, out);
                } else {
                    // A port that was just connected may send long before it receives (spanning
                    // tree, bonds, virtual switches).
                    self.listens_until = now + self.config.listen_first;
                    self.become_backup(now, Waiting::Silence);
                    out.push(Effect::Moved(Reason::Startup));
                }
            }
            (
                State::Initialize,
                Input::Shutdown | Input::Advert(_) | Input::Misconfigured(_) | Input::Timeout,
            ) => {}

            // RFC 9568 §6.4.2 (Backup)
            (State::Backup { .. }, Input::Shutdown) => {
                self.state = State::Initialize;
                out.push(Effect::Moved(Reason::Shutdown));
            }
            (State::Backup { active_down_at, preempt_at, waiting }, Input::Timeout) => {
                if now >= active_down_at {
                    self.active_down(now, active_down_at, preempt_at, waiting, out);
                }
            }
            (State::Backup { .. }, Input::Advert(heard)) if heard.priority == 0 => {
                // "Set the Active_Down_Timer to Skew_Time": not at once, so that of several
                // backups the one of highest priority comes first.
                let skew = skew_time(
                    self.config.version,
                    self.config.priority,
                    self.active_adver_interval,
                );
                self.state = State::Backup {
                    active_down_at: now + skew,
                    preempt_at: None,
                    waiting: Waiting::Resigned,
                };
            }
            (State::Backup { preempt_at, .. }, Input::Advert(heard)) => {
                self.heard_as_backup(now, preempt_at, heard);
            }
            (State::Backup { active_down_at, preempt_at, .. }, Input::Misconfigured(heard)) => {
                // Deviation: the RFC discards such adverts and nothing more. A router that joins
                // its own cluster wrongly configured would then take addresses that are in use.
                if heard.priority != 0 {
                    let interval = self.active_adver_interval.max(heard.interval);
                    let wait =
                        active_down_interval(self.config.version, self.config.priority, interval);
                    self.state = State::Backup {
                        active_down_at: active_down_at.max(now + wait),
                        preempt_at,
                        waiting: Waiting::Guarded,
                    };
                }
                out.push(Effect::Guarding);
            }
            (State::Backup { .. } | State::Active { .. }, Input::Startup) => {}

            // RFC 9568 §6.4.3 (Active)
            (State::Active { .. }, Input::Shutdown) => {
                self.state = State::Initialize;
                out.push(Effect::Advertise(0));
                out.push(Effect::Deactivated(Reason::Shutdown));
            }
            (State::Active { adver_at }, Input::Timeout) => {
                if now >= adver_at {
                    self.adver_timer(now, adver_at, out);
                }
            }
            (State::Active { .. }, Input::Advert(heard)) => {
                self.heard_as_active(now, local, heard, out);
            }
            (State::Active { .. }, Input::Misconfigured(_)) => out.push(Effect::Guarding),
        }
    }

    /// Takes a new configuration of the same router: VRID, version, family and interface are as
    /// they were. State and addresses stay; only what the change concerns is done again.
    pub fn reconfigure(
        &mut self,
        now: Instant,
        local: Option<IpAddr>,
        config: Arc<config::Router>,
        out: &mut Vec<Effect>,
    ) {
        let old = std::mem::replace(&mut self.config, config);
        let new = &self.config;
        if new.version == Version::V2 {
            self.active_adver_interval = new.advert_interval;
        }
        match self.state {
            State::Initialize => {}
            State::Backup { waiting, .. } => {
                if new.priority == Priority::OWNER {
                    self.state = State::Initialize;
                    if let Some(local) = local {
                        self.handle(now, local, Input::Startup, out);
                    }
                } else if old.priority != new.priority
                    || old.advert_interval != new.advert_interval
                    || old.preempt_delay != new.preempt_delay
                {
                    let heard_nothing = waiting == Waiting::Silence;
                    let waiting = if heard_nothing { waiting } else { Waiting::Accepted };
                    self.become_backup(now, waiting);
                }
            }
            State::Active { .. } => {
                let same = old.priority == new.priority
                    && old.advert_interval == new.advert_interval
                    && old.auth_pass == new.auth_pass
                    && old.vips == new.vips
                    && old.checksum == new.checksum;
                if !same {
                    out.push(Effect::Advertise(new.priority.number()));
                    self.state = State::Active { adver_at: self.next_advert(now) };
                }
            }
        }
    }

    /// Active_Down_Timer fired.
    fn active_down(
        &mut self,
        now: Instant,
        active_down_at: Instant,
        preempt_at: Option<Instant>,
        waiting: Waiting,
        out: &mut Vec<Effect>,
    ) {
        let late = now.since(active_down_at);
        if late > self.active_adver_interval.duration() && waiting != Waiting::Overslept {
            // This process (or machine) stood still. What the timer measured was its own absence,
            // not the active router's: listen for one advert more. Only once, so that a machine
            // that is always slow still takes over in the end.
            let skew =
                skew_time(self.config.version, self.config.priority, self.active_adver_interval);
            self.state = State::Backup {
                active_down_at: now + self.active_adver_interval.duration() + skew,
                preempt_at,
                waiting: Waiting::Overslept,
            };
            out.push(Effect::Overslept(late));
            return;
        }
        let reason = match waiting {
            Waiting::Silence | Waiting::Accepted | Waiting::Guarded | Waiting::Overslept => {
                Reason::NoResponse
            }
            Waiting::Resigned => Reason::Resigned,
            Waiting::Preempting => Reason::Preempted,
        };
        self.become_active(now, reason, out);
    }

    /// An advert with a priority other than 0, heard as backup.
    fn heard_as_backup(&mut self, now: Instant, preempt_at: Option<Instant>, heard: Heard) {
        if heard.priority >= self.config.priority.number() || !self.config.preempt {
            self.active_adver_interval = heard.interval;
            self.become_backup(now, Waiting::Accepted);
            return;
        }
        // "Discard the ADVERTISEMENT": the timer runs on, and ends in preemption. Only what was
        // added to it so that somebody may be heard has done its work.
        let wait = self.active_down_interval();
        let State::Backup { active_down_at, waiting, .. } = self.state else { return };
        let is_silence = waiting == Waiting::Silence;
        let timer = if is_silence { active_down_at.min(now + wait) } else { active_down_at };
        // A delay counts from here, and ends in preemption too; a short one is no shorter than none.
        let delay = self.config.preempt_delay;
        let preempt_at = preempt_at
            .unwrap_or_else(|| if delay.is_zero() { now } else { timer.max(now + delay) });
        let (active_down_at, waiting) = if now < preempt_at {
            // Until then the sender is the active router, and may fall silent.
            self.active_adver_interval = heard.interval;
            let silent_at = now + self.active_down_interval();
            let waiting =
                if preempt_at <= silent_at { Waiting::Preempting } else { Waiting::Accepted };
            (silent_at.min(preempt_at), waiting)
        } else {
            (timer, Waiting::Preempting)
        };
        self.state = State::Backup { active_down_at, preempt_at: Some(preempt_at), waiting };
    }

    /// Active_Down_Interval, with what is known of the active router.
    fn active_down_interval(&self) -> Duration {
        active_down_interval(self.config.version, self.config.priority, self.active_adver_interval)
    }

    /// Adver_Timer fired.
    fn adver_timer(&mut self, now: Instant, adver_at: Instant, out: &mut Vec<Effect>) {
        let priority = self.config.priority;
        let interval = self.config.advert_interval;
        out.push(Effect::Advertise(priority.number()));
        let late = now.since(adver_at);
        if late > interval.duration() / 2 {
            out.push(Effect::Late);
        }
        if late > active_down_interval(self.config.version, priority, interval) {
            // Whoever waited for this router has taken over meanwhile, and gave way or fell
            // silent again unheard: hosts and switches may still hold what it announced.
            out.push(Effect::Reannounce(Reason::Overslept));
        }
        // A little late: the next one keeps the cadence. Much late: a new cadence begins.
        let from = if late < interval.duration() / 2 { adver_at } else { now };
        self.state = State::Active { adver_at: self.next_advert(from) };
    }

    /// An advert heard as active.
    fn heard_as_active(
        &mut self,
        now: Instant,
        local: IpAddr,
        heard: Heard,
        out: &mut Vec<Effect>,
    ) {
        let priority = self.config.priority.number();
        if heard.priority == 0 {
            // Whoever listens learns at once that an active router is there.
            if self.may_answer(now) {
                out.push(Effect::Advertise(priority));
                self.state = State::Active { adver_at: self.next_advert(now) };
            }
        } else if heard.priority > priority || (heard.priority == priority && heard.src > local) {
            self.active_adver_interval = heard.interval;
            self.become_backup(now, Waiting::Accepted);
            out.push(Effect::Deactivated(Reason::Outranked(heard.src)));
        } else {
            // RFC 9568 §6.4.3: a losing advert is answered at once, so that its sender yields.
            if self.may_answer(now) {
                out.push(Effect::Advertise(priority));
                out.push(Effect::Reannounce(Reason::ConflictWon(heard.src)));
            }
            out.push(Effect::Won(heard));
        }
    }

    /// Whether an advert out of turn may answer what was heard. The answers are bounded, or a
    /// stranger's flood would make this router flood.
    fn may_answer(&mut self, now: Instant) -> bool {
        let pause = self.config.advert_interval.duration() / 8;
        let may = self.answered_at.is_none_or(|at| now.since(at) >= pause);
        if may {
            self.answered_at = Some(now);
        }
        may
    }

    fn become_active(&mut self, now: Instant, reason: Reason, out: &mut Vec<Effect>) {
        out.push(Effect::Advertise(self.config.priority.number()));
        self.state = State::Active { adver_at: self.next_advert(now) };
        self.answered_at = None;
        out.push(Effect::Activated(reason));
    }

    fn become_backup(&mut self, now: Instant, waiting: Waiting) {
        let wait = self.active_down_interval();
        let silence_until =
            if waiting == Waiting::Silence { self.listens_until } else { Instant::ZERO };
        let active_down_at = silence_until.max(now + wait);
        self.state = State::Backup { active_down_at, preempt_at: None, waiting };
    }

    /// When the advert after one sent (or due) at `from` is due: after the interval, or up to
    /// min(interval / 20, 2 ms) early, until it falls on this router's slot. Never late.
    fn next_advert(&self, from: Instant) -> Instant {
        let interval = self.config.advert_interval.duration();
        let next = from + interval;
        let Some(slot) = self.slot else { return next };
        let period = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let slot = u64::try_from(slot.as_nanos()).unwrap_or(0) % period;
        let past_slot = (next.nanos() % period + period - slot) % period;
        next.before(Duration::from_nanos(past_slot).min(interval / 20).min(EARLY_MAX))
    }
}

#[cfg(test)]
mod tests;
