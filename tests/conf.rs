//! Every sample configuration is right, and means what its comments say.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use havip::config::{
    Config, Facts, Input, NodeName, NodeNaming, Outcome, Policy, Problem, Router, RouterName,
    Settings, TomlFile, Tree, Value, Vanished, build, check_all, effective, settings, to_toml,
};
use havip::wire::Family;
use havip::wire::vrrp::Version;

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

fn samples() -> Vec<PathBuf> {
    let examples = fs::read_dir(conf().join("examples")).unwrap();
    let mut files: Vec<PathBuf> = examples.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.push(conf().join("havip.toml"));
    assert!(files.len() >= 15, "the examples are gone: {files:?}");
    files
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

/// What the original's API leaves in etcd.
fn store() -> Tree {
    let keys: Vec<(&[u8], &[u8], i64)> = vec![
        (b"/havip/virtual_routers/default/interface", b"eth0", 5),
        (b"/havip/virtual_routers/default/advert_interval", b"2", 6),
        (b"/havip/virtual_routers/100/vips", b"192.0.2.3,192.0.2.4\n", 7),
        (b"/havip/virtual_routers/101/vips", b"192.0.2.5", 8),
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
    build(&Input {
        tree,
        node: &node,
        previous: None,
        policy,
        facts: &Facts::default(),
        vanished: Vanished::Hold,
        listed_since: None,
    })
}

fn right(tree: &Tree, node: &str, policy: &Policy) -> Config {
    let outcome = built(tree, node, policy);
    assert!(outcome.problems.is_empty(), "{}", told(&outcome.problems));
    outcome.config
}

fn router<'a>(config: &'a Config, name: &str) -> &'a Router {
    &config.routers[&RouterName::new(name).unwrap()]
}

fn vips(router: &Router) -> Vec<String> {
    router.vips.iter().map(ToString::to_string).collect()
}

fn password(router: &Router) -> Option<&str> {
    router.auth_pass.as_ref().map(|pass| pass.reveal())
}

#[cfg(feature = "daemon")]
#[test]
fn every_sample_passes_the_check() {
    let copy = std::env::temp_dir().join(format!("havip-samples-{}.toml", std::process::id()));
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    for file in samples() {
        // With the mode that a file with a password has.
        let text = fs::read(&file).unwrap();
        std::io::Write::write_all(&mut options.open(&copy).unwrap(), &text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_havip"))
            .arg("check")
            .arg(&copy)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}: {text}{errors}", file.display());
    }
    fs::remove_file(&copy).unwrap();
}

#[test]
fn every_sample_is_right_for_every_node_in_it_and_survives_being_written_anew() {
    for path in samples() {
        let (tree, settings) = load(&path);
        let problems = check_all(
            &tree,
            &settings.policy,
            &Facts::default(),
            settings.etcd_endpoints.is_some(),
        );
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
fn the_samples_name_every_key_there_is() {
    let text: String = samples().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for key in havip::config::key::ROUTER_KEYS {
        // A check program is not acted on yet, so no sample suggests one.
        if !key.name.starts_with("check") || key.name == "checksum" {
            assert!(text.contains(&format!("\n{} = ", key.name)), "{} is in no sample", key.name);
        }
    }
}

#[test]
fn the_samples_name_every_setting_of_etcd() {
    let text: String = samples().iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    for (_, name, _) in havip::config::SETTINGS.iter().filter(|(table, ..)| *table == "etcd") {
        let written = [format!("\n{name} = "), format!("\n# {name} = ")];
        assert!(written.iter().any(|line| text.contains(line)), "{name} is in no sample");
    }
}

#[test]
fn the_sample_with_every_key_shows_the_defaults() {
    let (tree, settings) = example("every-key.toml");
    let mut bare = tree.clone();
    bare.remove_below("virtual_router/");
    bare.remove_below("havip/");
    for key in ["vrid", "vips", "vips_excluded", "interface"] {
        let path = format!("virtual_router/everything/{key}");
        let entry = tree.get(&path).unwrap();
        bare.insert(&path, entry.value.clone(), entry.origin.clone());
    }
    let node = tree.get("havip/node").unwrap();
    bare.insert("havip/node", node.value.clone(), node.origin.clone());
    let none = Policy::default();
    assert_eq!(right(&bare, "gw1", &none), right(&tree, "gw1", &none));
    assert_eq!(havip::config::settings(&bare).0, settings);
}

#[test]
fn two_gateways_share_one_file_and_differ_in_priority() {
    let (tree, settings) = example("two-gateways.toml");
    let (gw1, gw2) = (right(&tree, "gw1", &settings.policy), right(&tree, "gw2", &settings.policy));
    let (first, second) = (router(&gw1, "51"), router(&gw2, "51"));
    assert_eq!((first.priority.number(), second.priority.number()), (150, 100));
    assert_eq!((first.version, first.family), (Version::V3, Family::V4));
    assert_eq!(first.advert_interval.duration(), Duration::from_millis(100));
    assert_eq!(first.preempt_delay, Duration::from_secs(30));
    assert_eq!(vips(first), ["192.0.2.100", "192.0.2.101/24"]);
}

#[test]
fn both_families_use_one_vrid_under_two_names() {
    let (tree, settings) = example("ipv6.toml");
    let config = right(&tree, "gw1", &settings.policy);
    let (v4, v6) = (router(&config, "lan4"), router(&config, "lan6"));
    assert_eq!((v4.vrid, v4.family), (v6.vrid, Family::V4));
    assert_eq!((v6.vrid.number(), v6.family), (51, Family::V6));
    assert_eq!(vips(v6), ["fe80::100", "2001:db8::100"]);
}

#[test]
fn version_2_has_its_password_and_shows_it_nowhere() {
    let (tree, settings) = example("vrrpv2-password.toml");
    let config = right(&tree, "gw1", &settings.policy);
    let router = router(&config, "51");
    assert_eq!((router.version, password(router)), (Version::V2, Some("letmein")));
    let shown = effective(&tree, &NodeName::new("gw1").unwrap());
    let secret = shown.iter().find(|shown| shown.key == "auth_pass").unwrap();
    assert_eq!(secret.value, "(hidden)");
    assert!(!format!("{tree:?} {config:?} {shown:?}").contains("letmein"));
}

#[test]
fn beside_the_original_a_node_speaks_as_its_agents_do() {
    let (file, of_file) = example("beside-the-original.toml");
    let (upper, of_etcd) = example("beside-the-original-etcd.toml");
    assert_eq!((of_file.etcd_endpoints, of_etcd.etcd_endpoints.unwrap().len()), (None, 3));
    let (merged, shadows) = Tree::overlay(&upper, &store());
    assert_eq!(shadows, []);
    for (tree, node, interval) in [(file, "gw2", 100), (merged, "gw1", 200)] {
        let config = right(&tree, node, &Policy::default());
        for name in ["100", "101"] {
            let router = router(&config, name);
            assert_eq!((router.version, router.priority.number()), (Version::V2, 50));
            assert_eq!((router.preempt, password(router)), (false, Some("Sylvanas")));
            assert_eq!(router.advert_interval.0, interval);
        }
    }
}

#[test]
fn with_etcd_alone_everything_is_etcds() {
    let (local, settings) = example("etcd-http.toml");
    assert_eq!(settings.node, NodeNaming::Name(NodeName::new("gw1").unwrap()));
    assert_eq!(settings.etcd_endpoints.unwrap().first().unwrap(), "192.0.2.11:2379");
    let config = right(&Tree::overlay(&local, &store()).0, "gw1", &settings.policy);
    assert_eq!(vips(router(&config, "100")), ["192.0.2.3", "192.0.2.4"]);
    assert_eq!(config.node_ip, Some("1.2.3.4".parse().unwrap()));
}

#[test]
fn a_policy_holds_off_what_the_box_does_not_want() {
    let (local, settings) = example("policy.toml");
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
    let (local, settings) = example("override.toml");
    let mut store = store();
    let origin = store.get("virtual_router/100/vips").unwrap().origin.clone();
    store.insert("node/gw1/virtual_router/100/interface", Value::Text("eth1".into()), origin);
    let (tree, shadows) = Tree::overlay(&local, &store);
    let hidden: Vec<_> = shadows.iter().map(|shadow| shadow.path.as_str()).collect();
    assert_eq!(hidden, ["node/gw1/virtual_router/100/interface"]);
    let config = right(&tree, "gw1", &settings.policy);
    assert_eq!(router(&config, "100").interface.as_str(), "eth2");
    assert_eq!(config.routers.len(), 1, "101 is switched off here");
    let shown = effective(&tree, &config.node);
    let interface =
        shown.iter().find(|shown| (&*shown.router, shown.key) == ("100", "interface")).unwrap();
    assert!(interface.origin.to_string().contains("override.toml:"), "{}", interface.origin);
}
