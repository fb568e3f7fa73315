//! What each key may be, and what is said when it is not.

use super::*;
use crate::config::{
    ChecksumMode, EtcdLogin, Lifetime, NodeNaming, check_all, effective, settings, to_flat, to_toml,
};

const GOOD: &str = "interface = \"eth0\"\nvips = [\"10.0.0.3\"]\n";

#[test]
fn a_router_needs_vips_and_an_interface_and_nothing_else() {
    let config = right(&router_100(GOOD));
    let router = router(&config, "100");
    assert_eq!((router.vrid.number(), router.priority.number()), (100, 100));
    assert_eq!((router.version.number(), router.advert_interval.0), (3, 100));
    assert!(router.preempt && router.preempt_delay.is_zero() && router.auth_pass.is_none());
    assert_eq!(router.address_lifetime, Lifetime::Auto);
    assert_eq!(router.checksum, ChecksumMode::Auto);

    assert_refused("vips = [\"10.0.0.3\"]", "error: virtual_router/100/interface: missing");
    assert_refused("interface = \"eth0\"", "error: virtual_router/100/vips: missing");
}

#[test]
fn all_that_is_wrong_with_a_router_is_said_at_once() {
    let tree = router_100("priority = 0\nversion = 4\nvips = \"x\"\npreempt = \"perhaps\"\n");
    let problems = on(&tree, None).problems;
    for beginning in [
        "conf:5: error: virtual_router/100/priority: \"0\" is not a number from 1 to 255",
        "conf:6: error: virtual_router/100/version: \"4\" is neither \"2\" nor \"3\"",
        "conf:7: error: virtual_router/100/vips: \"x\" is not an IP address",
        "conf:8: error: virtual_router/100/preempt: \"perhaps\" is neither true nor false",
        "error: virtual_router/100/interface: missing; set it here (or virtual_router/default/)",
        "error: virtual_router/100: its keys are not right: this router does not run",
    ] {
        assert_told(&problems, Severity::Error, beginning);
    }
}

#[test]
fn a_value_out_of_its_range_is_refused_with_its_place() {
    for (line, what) in [
        ("priority = 256", "priority: \"256\" is not a number from 1 to 255"),
        ("priority = -1", "priority: \"-1\" is not a number"),
        ("priority = [1, 2]", "priority: one value is expected, not a list"),
        ("vrid = 300", "vrid: \"300\" is not a number from 1 to 255"),
        ("version = \"2+3\"", "version: \"2+3\" is neither"),
        ("advert_interval = 41", "advert_interval: \"41\" is not seconds from 0.01 to 40.95"),
        ("advert_interval = 0.001", "advert_interval: \"0.001\" is not seconds"),
        ("advert_interval = nan", "advert_interval: \"nan\" is not seconds"),
        ("preempt_delay = 1001", "preempt_delay: \"1001\" is not a number of seconds"),
        ("accept = false", "accept: accept = false needs a packet filter"),
        ("checksum = \"md5\"", "checksum: \"md5\" is none of auto"),
        ("address_lifetime = 1", "address_lifetime: \"1\" is none of auto, forever and 2 to"),
        ("profile = \"modern\"", "profile: \"modern\": the one profile is \"original\""),
        ("check = \"../../bin/sh\"", "check: \"../../bin/sh\" is not the name of a check program"),
        ("check_rise = 0", "check_rise: \"0\" is not a number from 1 to 1000"),
    ] {
        let lines = format!("{line}\n{GOOD}");
        assert_refused(&lines, &format!("conf:5: error: virtual_router/100/{what}"));
    }
    for (interface, why) in [
        ("a-name-that-is-too-long", "an interface's name has 1 to 15 characters"),
        ("eth0:1", "an interface's name has no \"/\""),
        ("..", "an interface cannot be named"),
    ] {
        assert_refused(
            &format!("interface = \"{interface}\"\nvips = [\"10.0.0.3\"]"),
            &format!("conf:5: error: virtual_router/100/interface: \"{interface}\": {why}"),
        );
    }
}

#[test]
fn version_2_counts_in_whole_seconds_and_has_no_ipv6() {
    assert_refused(
        &format!("version = 2\nadvert_interval = 0.5\n{GOOD}"),
        "conf:6: error: virtual_router/100/advert_interval: \"0.5\" is not whole seconds from 1",
    );
    assert_refused(
        "version = 2\ninterface = \"eth0\"\nvips = [\"fe80::1\"]\n",
        "conf:5: error: virtual_router/100/version: version 2 has no IPv6",
    );
    let config = right(&router_100(&format!("version = 2\nadvert_interval = 255\n{GOOD}")));
    assert_eq!(router(&config, "100").advert_interval.0, 25_500);
}

#[test]
fn a_password_belongs_to_version_2_and_is_never_shown() {
    let config = right(&router_100(&format!("version = 2\nauth_pass = \"geheim\"\n{GOOD}")));
    assert_eq!(router(&config, "100").auth_pass.as_ref().map(|p| p.reveal()), Some("geheim"));

    let outcome = on(&router_100(&format!("auth_pass = \"geheim\"\n{GOOD}")), None);
    assert_eq!(router(&outcome.config, "100").auth_pass, None);
    assert_told(
        &outcome.problems,
        Severity::Warning,
        "conf:5: warning: virtual_router/100/auth_pass: version 3 has no authentication: not used",
    );

    let tree = router_100(&format!("version = 2\nauth_pass = \"geheimnis\"\n{GOOD}"));
    let problems = on(&tree, None).problems;
    assert_told(
        &problems,
        Severity::Error,
        "conf:6: error: virtual_router/100/auth_pass: a password has 1 to 8 bytes, this one has 9; \
         of a longer one keepalived sends only the first 8",
    );
    assert!(!format!("{} {problems:?} {tree:?}", told(&problems)).contains("geheim"));
}

#[test]
fn a_router_is_named_by_its_vrid_or_has_one_beside_its_name() {
    for (router, line, what) in [
        ("0", "", "0: a router named by a number has its VRID, 1 to 255, as its name"),
        ("256", "", "256: a router named by a number"),
        ("007", "", "007: a router named by a number"),
        ("web", "", "web/vrid: missing; a router that is not named by its VRID"),
    ] {
        let tree = toml(&format!(
            "[node.gw1]\nvrids = [\"{router}\"]\n[virtual_router.{router}]\n{line}\n{GOOD}"
        ));
        let outcome = on(&tree, None);
        let beginning = format!("error: virtual_router/{what}");
        assert_told(&outcome.problems, Severity::Error, &beginning);
        assert!(outcome.config.routers.is_empty());
    }
    assert_refused(
        &format!("vrid = 101\n{GOOD}"),
        "conf:5: error: virtual_router/100/vrid: 101, but the router is named 100; delete",
    );
    assert_eq!(names(&right(&router_100(&format!("vrid = 100\n{GOOD}")))), ["100"]);
    let web = toml(&format!("node.gw1.vrids = [\"web\"]\n[virtual_router.web]\nvrid = 7\n{GOOD}"));
    assert_eq!(router(&right(&web), "web").vrid.number(), 7);
}

#[test]
fn the_name_default_is_reserved() {
    let problems = on(&toml("node.gw1.vrids = [\"default\"]"), None).problems;
    assert_told(
        &problems,
        Severity::Error,
        "conf:1: error: node/gw1/vrids: \"default\": the name \"default\" is reserved",
    );
}

#[test]
fn what_belongs_to_one_router_cannot_be_a_default() {
    for key in ["vips", "vrid", "vips_excluded"] {
        let tree = toml(&format!("virtual_router.default.{key} = \"1\"\nnode.gw1.vrids = []"));
        let beginning = format!(
            "conf:1: error: virtual_router/default/{key}: {key} belongs to one router, and cannot"
        );
        assert_told(&on(&tree, None).problems, Severity::Error, &beginning);
    }
}

#[test]
fn vips_are_of_one_family_and_none_is_listed_twice() {
    assert_refused(
        "interface = \"eth0\"\nvips = [\"10.0.0.3\", \"fe80::1\"]\n",
        "conf:6: error: virtual_router/100/vips: 10.0.0.3 and fe80::1 are of different families",
    );
    assert_refused(
        "interface = \"eth0\"\nvips = []\n",
        "conf:6: error: virtual_router/100/vips: empty; a router has at least one VIP",
    );
    let tree = router_100(
        "interface = \"eth0\"\nvips = \"10.0.0.9,10.0.0.3,10.0.0.9\"\n\
         vips_excluded = [\"10.0.0.3\", \"fe80::7\"]\n",
    );
    let Outcome { config, problems, .. } = on(&tree, None);
    let router = router(&config, "100");
    assert_eq!(vips(router), ["10.0.0.9", "10.0.0.3"]);
    assert_eq!(router.vips_excluded.len(), 1);
    for beginning in [
        "conf:6: warning: virtual_router/100/vips: 10.0.0.9 is listed twice",
        "conf:7: warning: virtual_router/100/vips_excluded: 10.0.0.3 stands in vips too",
    ] {
        assert_told(&problems, Severity::Warning, beginning);
    }
}

#[test]
fn a_range_of_vips_is_written_shown_and_read_again_as_it_stands() {
    let text = "interface = \"eth0\"\nvips = [\"10.0.0.3-5/24\", \"10.0.0.9\"]\n\
                vips_excluded = \"fe80::1-3\"\n";
    let tree = router_100(text);
    let expected = ["10.0.0.3/24", "10.0.0.4/24", "10.0.0.5/24", "10.0.0.9"];
    assert_eq!(vips(router(&right(&tree), "100")), expected);
    assert_eq!(router(&right(&tree), "100").vips_excluded.len(), 3);
    let (again, _) = Tree::from_toml(&to_toml(&tree), &TomlFile::Local("conf".into())).unwrap();
    assert_eq!(right(&again), right(&tree));
    let (keys, _) = to_flat(&tree, "/havip/");
    let keys: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(right(&etcd(&keys)), right(&tree));
    let shown = effective(&tree, &gw1());
    assert!(shown.iter().any(|shown| shown.value == "10.0.0.3-5/24,10.0.0.9"), "{shown:?}");
    let network = "interface = \"eth0\"\nvips = [\"10.0.0.250-255/24\"]\n";
    assert_refused(network, "conf:6: error: virtual_router/100/vips: 10.0.0.255/24: a broadcast");
}

#[test]
fn the_first_ipv6_vip_is_link_local() {
    assert_refused(
        "interface = \"eth0\"\nvips = [\"2001:db8::1\", \"fe80::1\"]\n",
        "conf:6: error: virtual_router/100/vips: 2001:db8::1 comes first, but peers discard",
    );
    right(&router_100("interface = \"eth0\"\nvips = [\"fe80::1\", \"2001:db8::1\"]\n"));
}

#[test]
fn more_vips_than_an_advert_carries_are_held_with_a_warning() {
    let list: Vec<String> =
        (1..=300).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    let tree = router_100(&format!("interface = \"eth0\"\nvips = \"{}\"\n", list.join(",")));
    let Outcome { config, problems, .. } = on(&tree, None);
    assert_eq!(router(&config, "100").vips.len(), 300);
    assert_told(
        &problems,
        Severity::Warning,
        "conf:6: warning: virtual_router/100/vips: 300 VIPs, but an advert carries 255: the last 45",
    );
}

#[test]
fn one_vrid_of_one_family_on_one_interface_belongs_to_one_router() {
    let two = |b: &str| {
        toml(&format!(
            "node.gw1.vrids = [\"a\", \"b\"]\nvirtual_router.default.interface = \"eth0\"\n\
             [virtual_router.a]\nvrid = 7\nvips = [\"10.0.0.3\"]\n\
             [virtual_router.b]\nvrid = 7\n{b}\n"
        ))
    };
    let outcome = on(&two("vips = [\"10.0.0.4\"]"), None);
    assert_eq!(names(&outcome.config), ["a"], "the first by name stays");
    assert_told(
        &outcome.problems,
        Severity::Error,
        "conf:8: error: virtual_router/b/vips: VRID 7 of IPv4 on eth0 is router a's already",
    );
    for other in ["interface = \"eth1\"\nvips = [\"10.0.0.4\"]", "vips = [\"fe80::1\"]"] {
        assert_eq!(names(&right(&two(other))), ["a", "b"]);
    }
}

#[test]
fn one_vip_on_one_interface_belongs_to_one_router() {
    let tree = toml(
        "node.gw1.vrids = [1, 2, 3]\nvirtual_router.default.interface = \"eth0\"\n\
         virtual_router.1.vips = [\"10.0.0.3\"]\n\
         virtual_router.2.vips = [\"10.0.0.4\"]\nvirtual_router.2.vips_excluded = \"10.0.0.3/24\"\n\
         virtual_router.3.vips = [\"10.0.0.3\"]\nvirtual_router.3.interface = \"eth1\"\n",
    );
    let outcome = on(&tree, None);
    assert_eq!(names(&outcome.config), ["1", "3"]);
    assert_told(
        &outcome.problems,
        Severity::Error,
        "conf:4: error: virtual_router/2/vips: 10.0.0.3 on eth0 is router 1's already; take it out",
    );
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    for (local, severity, beginning) in [
        (true, Severity::Error, "conf:5: error: virtual_router/100/prioritty: unknown key; did"),
        (false, Severity::Warning, "/havip/virtual_router/100/prioritty (revision 1): warning: "),
    ] {
        let tree = if local {
            router_100(&format!("prioritty = 7\n{GOOD}"))
        } else {
            let (tree, _) = Tree::overlay(
                &router_100(GOOD),
                &etcd(&[("/havip/virtual_router/100/prioritty", "7")]),
            );
            tree
        };
        let outcome = on(&tree, None);
        assert_told(&outcome.problems, severity, beginning);
        assert!(told(&outcome.problems).contains("did you mean \"priority\"?"));
        assert_eq!(names(&outcome.config), ["100"]);
    }
}

#[test]
fn a_word_of_keepalived_s_is_answered_with_what_stands_for_it_here() {
    for (line, expected) in [
        ("advert_int = 1", "it is keepalived's: havip's key for it is advert_interval"),
        ("virtual_router_id = 51", "it is keepalived's: havip's key for it is vrid"),
        ("state = \"MASTER\"", "havip has no initial state"),
        ("unicast_peer = [\"10.0.0.2\"]", "unicast is not supported yet"),
        ("nopreempt = true", "write preempt = false"),
        ("track_script = [\"x\"]", "tracking and check scripts are not supported yet"),
        ("virtual_ipaddress = [\"10.0.0.1\"]", "havip's key for it is vips"),
        ("auth_type = \"PASS\"", "a router with version = \"2\" and auth_pass has PASS"),
        ("authentication.auth_pass = \"x\"", "write auth_pass = \"...\""),
    ] {
        let problems = on(&router_100(&format!("{line}\n{GOOD}")), None).problems;
        assert_told(&problems, Severity::Error, "conf:5: error: virtual_router/100/");
        assert!(told(&problems).contains(expected), "{}", told(&problems));
    }
    let tree = toml("[vrrp_instance.VI_1]\ninterface = \"eth0\"");
    let problems = check_all(&tree, &Policy::default(), &Facts::default(), false);
    assert!(told(&problems).contains("write [virtual_router.NAME]"), "{}", told(&problems));
    let problems = settings(&toml("[havip]\nrouter_id = \"gw1\"")).1;
    assert!(told(&problems).contains("write the node's name in [havip] node"));
}

#[test]
fn a_router_that_is_not_listed_here_is_none_of_this_nodes_business() {
    let tree = etcd(&[
        ("/havip/node/gw1/vrids", "none"),
        ("/havip/node/gw2/vrids", "7"),
        ("/havip/virtual_router/7/vips", "rubbish"),
        ("/havip/virtual_router/7/unknown", "1"),
    ]);
    assert_eq!(on(&tree, None).problems, []);
}

#[test]
fn check_keys_are_read_and_once_said_to_be_without_effect() {
    let tree = router_100(&format!("check = \"ping\"\ncheck_interval = 2\ncheck_fall = 3\n{GOOD}"));
    let Outcome { config, problems, .. } = on(&tree, None);
    assert_eq!(router(&config, "100").check.as_ref().unwrap().fall, Some(3));
    assert_eq!(
        told(&problems),
        "conf:5: note: virtual_router/100/check: check and check_* are read, but nothing acts on \
         them yet\n"
    );
}

#[test]
fn the_original_profile_changes_the_built_in_values_and_written_keys_win() {
    let config = right(&router_100(&format!("profile = \"original\"\npriority = 60\n{GOOD}")));
    let it = router(&config, "100");
    assert_eq!((it.version.number(), it.priority.number(), it.preempt), (2, 60, false));
    assert_eq!(it.auth_pass.as_ref().map(|pass| pass.reveal()), Some("Sylvanas"));

    let config = right(&router_100(&format!("profile = \"original\"\nversion = 3\n{GOOD}")));
    assert_eq!(router(&config, "100").auth_pass, None);
    let config = right(&router_100(&format!("profile = \"none\"\n{GOOD}")));
    assert_eq!(router(&config, "100").priority.number(), 100);
}

#[test]
fn the_place_nearest_to_the_node_and_its_router_wins() {
    let mut tree = router_100(GOOD);
    for (path, priority) in [
        ("", 100),
        ("virtual_router.default", 10),
        ("virtual_router.100", 20),
        ("node.gw1.virtual_router.default", 30),
        ("node.gw1.virtual_router.100", 40),
    ] {
        if !path.is_empty() {
            let upper = toml(&format!("{path}.priority = {priority}"));
            tree = Tree::overlay(&upper, &tree).0;
        }
        assert_eq!(router(&right(&tree), "100").priority.number(), priority, "{path}");
    }
    let (tree, _) = Tree::overlay(&toml("node.gw1.virtual_router.100.priority = \"none\""), &tree);
    assert_eq!(router(&right(&tree), "100").priority.number(), 30);
}

#[test]
fn sources_are_laid_over_each_other_before_places_are_asked() {
    // The store's more special place holds against the local file's more general one.
    let store = etcd(&[
        ("/havip/virtual_router/default/interface", "eth0"),
        ("/havip/virtual_router/100/vips", "10.0.0.3"),
        ("/havip/virtual_router/100/interface", "eth1"),
        ("/havip/virtual_router/100/priority", "30"),
        ("/havip/virtual_router/101/vips", "10.0.0.4"),
        ("/havip/node/gw1/vrids", "100,101"),
    ]);
    let file = toml("[virtual_router.default]\npriority = 70\ninterface = \"none\"\n");
    let Outcome { config, problems, .. } = on(&Tree::overlay(&file, &store).0, None);
    assert_eq!(router(&config, "100").priority.number(), 30);
    assert_eq!(names(&config), ["100"], "101 had its interface from the default");
    let beginning = "error: virtual_router/101/interface: missing";
    assert_told(&problems, Severity::Error, beginning);
}

#[test]
fn the_originals_tables_become_routers() {
    let config = right(&etcd(&[
        ("/havip/virtual_router/default/interface", "eth0\n"),
        ("/havip/virtual_router/default/advert_interval", "2"),
        ("/havip/virtual_router/100/vips", "10.0.0.3,10.0.0.4"),
        ("/havip/virtual_router/101/vips", "10.0.0.5"),
        ("/havip/virtual_router/101/interface", "eth1"),
        ("/havip/virtual_router/101/advert_interval", "3"),
        ("/havip/node/gw1/node_ip", "1.2.3.4"),
        ("/havip/node/gw1/vrids", "100,101"),
        ("/havip/binding/10.0.0.3/vrid", "100"),
        ("/havip/binding/10.0.0.3/namespace", "ns1"),
        ("/havip/vRouterGateway/100", "1.2.3.4,ab:cd:ef:12:34:56"),
    ]));
    assert_eq!(config.node_ip, Some("1.2.3.4".parse().unwrap()));
    let (first, second) = (router(&config, "100"), router(&config, "101"));
    assert_eq!((first.vrid.number(), first.interface.as_str()), (100, "eth0"));
    assert_eq!((first.advert_interval.0, second.advert_interval.0), (200, 300));
    assert_eq!(vips(first), ["10.0.0.3", "10.0.0.4"]);
    assert_eq!((second.version.number(), second.interface.as_str()), (3, "eth1"));
}

#[test]
fn a_node_ip_is_an_address() {
    let config = right(&toml("node.gw1 = { node_ip = \"1.2.3.4\", vrids = [] }"));
    assert_eq!(config.node_ip, Some("1.2.3.4".parse().unwrap()));
    let Outcome { config: now, problems, .. } =
        on(&toml("node.gw1 = { node_ip = \"1.2.3.4/8\", vrids = [] }"), Some(&config));
    assert_eq!(now.node_ip, config.node_ip);
    let beginning = "conf:1: error: node/gw1/node_ip: an address without /LEN";
    assert_told(&problems, Severity::Error, beginning);
}

#[test]
fn settings_have_defaults_and_say_what_is_wrong_with_its_line() {
    let (of_nothing, problems) = settings(&toml(""));
    assert_eq!(problems, []);
    assert_eq!((of_nothing.node, of_nothing.prefix.as_str()), (NodeNaming::Host, "/havip/"));
    assert_eq!(of_nothing.etcd_endpoints, None);

    for (text, beginning) in [
        (
            "[havip]\nrundir = \"/x\"",
            "conf:2: error: havip/rundir: unknown key; did you mean \"run_",
        ),
        ("[havip]\nnode = \"a/b\"", "conf:2: error: havip/node: a node's name has no slash"),
        ("[havip]\nnode = \"@host\"", "conf:2: error: havip/node: a name that begins with @"),
        ("[havip]\nrun_dir = \"run\"", "conf:2: error: havip/run_dir: \"run\" is not an absolute"),
        ("[havip]\nprefix = \"/havip\"", "conf:2: error: havip/prefix: a prefix ends in a slash"),
        ("[havip]\nlog_level = \"loud\"", "conf:2: error: havip/log_level: \"loud\" is none of"),
        ("[havip]\nrealtime = 7", "conf:2: error: havip/realtime: \"7\" is neither true nor"),
        ("[havip]\nguard = 7", "conf:2: error: havip/guard: \"7\" is neither true nor"),
        ("[etcd]\nendpoints = []", "conf:2: error: etcd/endpoints: empty"),
        ("[etcd]\nusername = \"u\"", "conf:2: error: etcd/username: password_file is missing"),
        ("[etcd]\nkey = \"/k\"", "conf:2: error: etcd/key: cert is missing beside it"),
        ("[etcd]\ntls_dir = \"/d\"\nca = \"/c\"", "conf:3: error: etcd/ca: tls_dir says where"),
        ("[etcd]\npassword = \"x\"", "conf:2: error: etcd/password: unknown key"),
        (
            "[policy]\ninterfaces = [\"e*0\"]",
            "conf:2: error: policy/interfaces: \"e*0\": a * stands",
        ),
        ("[policy]\naddresses = [\"10/8\"]", "conf:2: error: policy/addresses: \"10/8\" is not an"),
        (
            "[policy]\nfeatures = [\"vip\"]",
            "conf:2: error: policy/features: \"vip\" is no key of a router; did you mean",
        ),
        ("havip = 3", "conf:1: error: havip: unknown key; a table, not a value"),
        ("[hawip]\nnode = \"x\"", "conf:2: error: hawip/node: unknown key; did you mean \"havip\""),
        ("node = 3", "conf:1: error: node: unknown key; a table, not a value"),
        ("[node]\ngw1 = 3", "conf:2: error: node/gw1: unknown key; a table, not a value"),
        ("virtual_router = 3", "conf:1: error: virtual_router: unknown key; a table, not a value"),
    ] {
        assert_told(&settings(&toml(text)).1, Severity::Error, beginning);
    }
    let (of_all, problems) = settings(&toml(
        "[etcd]\nusername = \"u\"\npassword_file = \"/p\"\ntls_dir = \"/d\"\nserver_name = \"e\"\n\
         insecure_skip_verify = true\n[policy]\naddresses = [\"0.0.0.0/0\", \"fe80::/10\"]\n",
    ));
    assert_eq!(problems, []);
    let login = EtcdLogin { username: "u".into(), password_file: "/p".into() };
    assert_eq!(of_all.etcd_login, Some(login));
    assert!(of_all.etcd_tls.insecure_skip_verify);
}
