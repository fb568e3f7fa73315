//! What changes from one configuration to the next.

use super::model::{Config, Router, RouterName};

/// The routers that two configurations differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// New ones.
    pub added: Vec<RouterName>,
    /// Those that are no more.
    pub removed: Vec<RouterName>,
    /// Changed ones, with the keys that changed.
    pub changed: Vec<(RouterName, Vec<&'static str>)>,
}

impl Diff {
    /// Whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// What a node that runs `old` has to change to run `new`.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Diff {
    let missing = |from: &Config, to: &Config| -> Vec<RouterName> {
        from.routers.keys().filter(|name| !to.routers.contains_key(*name)).cloned().collect()
    };
    let changed = new
        .routers
        .iter()
        .filter_map(|(name, router)| {
            let keys = changed_keys(old.routers.get(name)?, router);
            (!keys.is_empty()).then(|| (name.clone(), keys))
        })
        .collect();
    Diff { added: missing(new, old), removed: missing(old, new), changed }
}

fn changed_keys(old: &Router, new: &Router) -> Vec<&'static str> {
    // Taken apart, so that a new field cannot be forgotten.
    let Router {
        name: _,
        vrid,
        version,
        family,
        interface,
        priority,
        preempt,
        preempt_delay,
        listen_first,
        carrier_delay,
        probe_interval,
        yield_on_send_errors,
        advert_interval,
        auth_pass,
        vips,
        vips_excluded,
        checksum,
        address_lifetime,
        check,
    } = old;
    let pairs = [
        ("vrid", *vrid == new.vrid),
        ("version", *version == new.version),
        ("vips", *vips == new.vips && *family == new.family),
        ("interface", *interface == new.interface),
        ("priority", *priority == new.priority),
        ("preempt", *preempt == new.preempt),
        ("preempt_delay", *preempt_delay == new.preempt_delay),
        ("listen_first", *listen_first == new.listen_first),
        ("carrier_delay", *carrier_delay == new.carrier_delay),
        ("probe_interval", *probe_interval == new.probe_interval),
        ("yield_on_send_errors", *yield_on_send_errors == new.yield_on_send_errors),
        ("advert_interval", *advert_interval == new.advert_interval),
        ("auth_pass", *auth_pass == new.auth_pass),
        ("vips_excluded", *vips_excluded == new.vips_excluded),
        ("checksum", *checksum == new.checksum),
        ("address_lifetime", *address_lifetime == new.address_lifetime),
        ("check", *check == new.check),
    ];
    pairs.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}
