//! The configurations that are shipped are right, and mean what their comments say.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use havip::config::{
    ChecksumMode, Config, EtcdTls, Facts, Input, NodeName, NodeNaming, Outcome, Policy, Problem,
    Router, RouterName, Settings, TomlFile, Tree, build, check_all, effective, settings, to_toml,
};
use havip::wire::Family;
use havip::wire::vrrp::Version;

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

fn load(path: &Path) -> (Tree, Settings) {
    let text = fs::read_to_string(path).unwrap();
    let file = TomlFile::Local(path.display().to_string().into());
    let (tree, problems) = Tree::from_toml(&text, &file).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(problems, []);
    let (settings, problems) = settings(&tree);
    assert!(problems.is_empty(), "{}", told(&problems));
    (tree, settings)
}

fn example(name: &str) -> (Tree, Settings) {
    load(&conf().join("examples").join(name))
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// What the README of the original shows, with a second router.
fn store() -> Tree {
    let keys: Vec<(&[u8], &[u8], i64)> = vec![
        (b"/havip/virtual_routers/default/interface", b"eth0", 5),
        (b"/havip/virtual_routers/default/advert_interval", b"2", 6),
        (b"/havip/virtual_routers/100/vips", b"10.20.0.3,10.20.0.4\n", 7),
        (b"/havip/virtual_routers/101/vips", b"10.20.0.5", 8),
        (b"/havip/node/gw1/node_ip", b"1.2.3.4", 9),
        (b"/havip/node/gw1/vrids", b"100,101", 10),
        (b"/havip/vRouterGateway/100", b"1.2.3.4,ab:cd:ef:12:34:56", 11),
    ];
    let (tree, problems) = Tree::from_flat("/havip/", keys);
    assert_eq!(problems, []);
    tree
}

fn built(tree: &Tree, node: &str, policy: &Policy) -> Outcome {
    let node = NodeName::new(node).unwrap();
    build(&Input { tree, node: &node, previous: None, policy, facts: &Facts::default() })
}

fn right(tree: &Tree, node: &str) -> Config {
    let outcome = built(tree, node, &Policy::default());
    assert!(outcome.problems.is_empty(), "{}", told(&outcome.problems));
    outcome.config
}

fn router<'a>(config: &'a Config, name: &str) -> &'a Router {
    &config.routers[&RouterName::new(name).unwrap()]
}

fn vips(router: &Router) -> Vec<String> {
    router.vips.iter().map(ToString::to_string).collect()
}

#[test]
fn every_shipped_configuration_is_right_and_survives_being_written_anew() {
    let mut paths = vec![conf().join("havip.toml")];
    let examples = fs::read_dir(conf().join("examples")).unwrap();
    paths.extend(examples.map(|entry| entry.unwrap().path()));
    assert!(paths.len() >= 8, "the examples are gone: {paths:?}");
    for path in paths {
        assert_eq!(path.extension().and_then(|ext| ext.to_str()), Some("toml"), "{path:?}");
        let (tree, settings) = load(&path);
        let problems = check_all(&tree, &settings.policy, &Facts::default());
        assert!(problems.is_empty(), "{}", told(&problems));

        let file = TomlFile::Local("again".into());
        let (again, problems) = Tree::from_toml(&to_toml(&tree), &file).unwrap();
        assert_eq!(problems, []);
        let values = |tree: &Tree| -> Vec<_> {
            tree.below("").map(|(path, entry)| (path.to_owned(), entry.value.clone())).collect()
        };
        assert_eq!(values(&again), values(&tree), "{path:?}");
    }
}

#[test]
fn the_shipped_file_changes_no_default() {
    let (_, shipped) = load(&conf().join("havip.toml"));
    let (_, defaults) = {
        let (tree, _) = Tree::from_toml("", &TomlFile::Local("empty".into())).unwrap();
        let (settings, problems) = settings(&tree);
        assert_eq!(problems, []);
        (tree, settings)
    };
    assert_eq!(shipped, defaults);
}

#[test]
fn what_the_shipped_file_has_in_comments_is_right_too() {
    let text = fs::read_to_string(conf().join("havip.toml")).unwrap();
    let is_toml = |line: &str| {
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        line.starts_with('[')
            || (!key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let (tree, _) = Tree::from_toml(&uncommented, &TomlFile::Local("havip.toml".into())).unwrap();
    let (with_all, problems) = settings(&tree);
    assert!(problems.is_empty(), "{}", told(&problems));
    assert_eq!(with_all.etcd_endpoints.as_ref().map(Vec::len), Some(3));
    assert_eq!(vips(router(&right(&tree, "gw1"), "100")), ["10.0.0.3", "10.0.0.4"]);

    // What is said to be a default is one.
    let (_, defaults) = load(&conf().join("havip.toml"));
    let node = defaults.node.clone();
    assert_eq!(Settings { node, etcd_endpoints: None, ..with_all }, defaults);
}

#[test]
fn two_gateways_share_one_file_and_the_work() {
    let (tree, settings) = example("two-gateways.toml");
    assert_eq!(settings.node, NodeNaming::Host);
    let (gw1, gw2) = (right(&tree, "gw1"), right(&tree, "gw2"));
    for (name, on_gw1, on_gw2) in [("100", 200, 100), ("101", 100, 200)] {
        assert_eq!(router(&gw1, name).priority.number(), on_gw1);
        assert_eq!(router(&gw2, name).priority.number(), on_gw2);
    }
    let one = router(&gw1, "101");
    assert_eq!((one.version, one.family), (Version::V3, Family::V4));
    assert_eq!(one.advert_interval.duration(), Duration::from_millis(500));
    assert_eq!(vips(one), ["10.0.0.5/24"]);
    assert!(one.preempt && one.checksum == ChecksumMode::Auto);
}

#[test]
fn both_families_use_one_vrid_under_two_names() {
    let (tree, _) = example("ipv6.toml");
    let config = right(&tree, "gw1");
    let (v4, v6) = (router(&config, "web4"), router(&config, "web6"));
    assert_eq!((v4.vrid, v4.family), (v6.vrid, Family::V4));
    assert_eq!((v6.vrid.number(), v6.family), (51, Family::V6));
    assert_eq!(vips(v6), ["fe80::51", "2001:db8::10"]);
    assert_eq!((v4.priority, v6.priority.number()), (v6.priority, 200));
    assert_eq!(router(&right(&tree, "gw2"), "web6").priority.number(), 100);
}

#[test]
fn version_2_has_its_password_and_shows_it_nowhere() {
    let (tree, _) = example("vrrpv2-password.toml");
    let config = right(&tree, "gw1");
    let router = router(&config, "60");
    assert_eq!(router.version, Version::V2);
    assert_eq!(router.auth_pass.as_ref().map(|pass| pass.reveal()), Some("s3cret"));
    assert_eq!(router.vips_excluded.len(), 1);
    let shown = effective(&tree, &NodeName::new("gw1").unwrap());
    let secret = shown.iter().find(|shown| shown.key == "auth_pass").unwrap();
    assert_eq!(secret.value, "(hidden)");
    assert!(!format!("{tree:?} {config:?} {shown:?}").contains("s3cret"));
}

#[test]
fn beside_the_original_a_node_speaks_as_its_agents_do() {
    let (local, settings) = example("beside-original-havip.toml");
    assert_eq!(settings.etcd_endpoints.map(|endpoints| endpoints.len()), Some(3));
    let (cert, key) = settings.etcd_tls.identity.unwrap();
    assert_eq!((cert, key), ("/etc/etcd/client.crt".into(), "/etc/etcd/client.key".into()));

    let (tree, shadows) = Tree::overlay(&local, &store());
    assert_eq!(shadows, []);
    let config = right(&tree, "gw1");
    assert_eq!(config.node_ip, Some("1.2.3.4".parse().unwrap()));
    for name in ["100", "101"] {
        let router = router(&config, name);
        assert_eq!((router.version, router.priority.number()), (Version::V2, 50));
        assert_eq!(router.auth_pass.as_ref().map(|pass| pass.reveal()), Some("Sylvanas"));
        assert_eq!((router.preempt, router.advert_interval.0), (false, 200));
    }
}

#[test]
fn with_etcd_alone_everything_is_etcds() {
    let (local, settings) = example("etcd.toml");
    assert_eq!(settings.node, NodeNaming::Name(NodeName::new("gw1").unwrap()));
    assert_eq!(settings.etcd_endpoints.unwrap().first().unwrap(), "10.0.0.1:2379");
    assert_eq!((settings.etcd_login, settings.etcd_tls), (None, EtcdTls::default()));
    let config = right(&Tree::overlay(&local, &store()).0, "gw1");
    assert_eq!(vips(router(&config, "100")), ["10.20.0.3", "10.20.0.4"]);
}

#[test]
fn a_policy_holds_off_what_the_box_does_not_want() {
    let (local, settings) = example("policy.toml");
    assert_eq!(settings.etcd_login.unwrap().username, "gateway");
    let (tree, _) = Tree::overlay(&local, &store());
    let outcome = built(&tree, "gw1", &settings.policy);
    // etcd says eth0, the policy eth1 and vlan*.
    assert!(outcome.config.routers.is_empty());
    let why = told(&outcome.problems);
    assert!(why.contains("/havip/virtual_routers/default/interface (revision 5)"), "{why}");
    assert!(why.contains("[policy] interfaces"), "{why}");
}

#[test]
fn an_override_holds_and_says_what_it_hides() {
    let (local, _) = example("override.toml");
    let mut store = store();
    let origin = store.get("virtual_router/100/vips").unwrap().origin.clone();
    let eth1 = havip::config::Value::Text("eth1".into());
    store.insert("node/gw1/virtual_router/100/interface", eth1, origin);
    let (tree, shadows) = Tree::overlay(&local, &store);
    let hidden: Vec<_> = shadows.iter().map(|shadow| shadow.path.as_str()).collect();
    assert_eq!(hidden, ["node/gw1/virtual_router/100/interface"]);
    let config = right(&tree, "gw1");
    assert_eq!(router(&config, "100").interface.as_str(), "eth2");
    assert_eq!(config.routers.len(), 1, "101 is switched off here");
    let shown = effective(&tree, &config.node);
    let interface =
        shown.iter().find(|shown| (&*shown.router, shown.key) == ("100", "interface")).unwrap();
    assert!(interface.origin.to_string().contains("override.toml:"), "{}", interface.origin);
}
