//! Words of keepalived.conf, and what stands for each of them here: who moves from keepalived types
//! them first.

/// Word, and what to write in its place.
const WORDS: &[(&str, &str)] = &[
    ("advert_int", "havip's key for it is advert_interval"),
    ("auth_type", "a router with version = \"2\" and auth_pass has PASS; AH is not supported"),
    (
        "authentication",
        "write auth_pass = \"...\", with version = \"2\", right in the router's table",
    ),
    ("debug", "set [havip] log_level = \"debug\""),
    ("dont_track_primary", "a router always follows its own interface"),
    ("down_timer_adverts", "it is 3, as in the RFC; another number is not supported"),
    (
        "garp_master_delay",
        "VIPs are announced as soon as the kernel has them, with repeats; no key for it",
    ),
    ("garp_master_refresh", "VIPs are announced each minute; no key for it"),
    ("garp_master_repeat", "VIPs are announced at once and three times more; no key for it"),
    ("global_defs", "write the daemon's own settings in [havip]"),
    ("highest_other_priority", "havip has no such key"),
    (
        "mcast_src_ip",
        "adverts are sent from an address of the interface, preferably in a VIP's subnet; no key for it",
    ),
    ("native_ipv6", "the VIPs determine the family; delete it"),
    ("no_accept", "accept = false is not supported yet"),
    ("nopreempt", "write preempt = false"),
    ("notify", "notify scripts are not supported yet"),
    ("notify_backup", "notify scripts are not supported yet"),
    ("notify_fault", "notify scripts are not supported yet"),
    ("notify_master", "notify scripts are not supported yet"),
    ("notify_stop", "notify scripts are not supported yet"),
    ("real_server", "load balancing is not supported yet"),
    ("router_id", "write the node's name in [havip] node"),
    ("script_user", "scripts are not supported yet"),
    (
        "skip_check_adv_addr",
        "havip has no such key: an advert with other addresses is accepted and logged",
    ),
    ("smtp_alert", "notifications are not supported yet"),
    ("state", "havip has no initial state: every router starts as backup, and priority decides"),
    ("strict_mode", "havip has no such key"),
    ("track_bfd", "tracking is not supported yet"),
    ("track_file", "tracking is not supported yet"),
    ("track_interface", "tracking is not supported yet; a router always follows its own interface"),
    ("track_process", "tracking is not supported yet"),
    ("track_script", "tracking and check scripts are not supported yet"),
    ("unicast_peer", "unicast is not supported yet: adverts go to the multicast group"),
    ("unicast_src_ip", "unicast is not supported yet: adverts go to the multicast group"),
    ("unicast_ttl", "unicast is not supported yet: adverts go to the multicast group"),
    ("use_vmac", "virtual MACs are not supported yet"),
    ("v3_checksum_as_v2", "checksum = \"auto\" does it by itself; delete it"),
    ("virtual_ipaddress", "havip's key for it is vips, a list"),
    ("virtual_ipaddress_excluded", "havip's key for it is vips_excluded, a list"),
    ("virtual_router_id", "havip's key for it is vrid; a router named by its number needs none"),
    ("virtual_routes", "routes are not supported yet"),
    ("virtual_rules", "rules are not supported yet"),
    ("virtual_server", "load balancing is not supported yet"),
    ("vmac_xmit_base", "virtual MACs are not supported yet"),
    ("vrrp_instance", "write [virtual_router.NAME]"),
    ("vrrp_iptables", "havip has no such key"),
    ("vrrp_rt_priority", "set [havip] realtime = true for real-time priority"),
    ("vrrp_script", "check scripts are not supported yet"),
    ("vrrp_startup_delay", "havip's key for it is listen_first, in the router's table"),
    ("vrrp_strict", "havip has no such key"),
    ("vrrp_sync_group", "sync groups are not supported yet"),
    ("vrrp_version", "havip's key for it is version, in the router's table"),
];

/// What stands for a word of keepalived's here. `path` may go on below the word.
pub(super) fn instead_of(path: &str) -> Option<&'static str> {
    let word = path.split('/').next()?;
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, instead)| *instead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::key::{BRANCHES, NODE_KEYS, ROUTER_KEYS};
    use crate::config::settings::{SETTINGS, TABLES};

    #[test]
    fn each_word_stands_once_in_order_and_every_key_that_it_names_exists() {
        assert!(WORDS.is_sorted_by(|(a, _), (b, _)| a < b));
        let known: Vec<&str> = ROUTER_KEYS
            .iter()
            .map(|key| key.name)
            .chain(SETTINGS.iter().map(|(_, name, _)| *name))
            .chain(NODE_KEYS.iter().chain(BRANCHES).copied())
            .chain(TABLES)
            .collect();
        for (word, instead) in WORDS {
            for key in instead.split(|c: char| !c.is_ascii_lowercase() && c != '_') {
                let is_key = key.contains('_');
                assert!(!is_key || known.contains(&key), "{word}: {key} is no key");
            }
            assert!(ROUTER_KEYS.iter().all(|key| key.name != *word), "{word} is a key of ours");
        }
    }
}
