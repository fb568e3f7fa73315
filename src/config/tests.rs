//! What the rooms of this module do together: sources to configuration.

use super::*;
use crate::wire::Family;
use crate::wire::vrrp::{Centis, Version};

fn local(text: &str) -> Tree {
    let file = TomlFile::Local("havip.toml".into());
    Tree::from_toml(text, &file).map(|(tree, _)| tree).unwrap_or_else(|problem| panic!("{problem}"))
}

fn etcd(keys: &[(&str, &str)]) -> Tree {
    let keys =
        keys.iter().zip(10..).map(|((key, value), at)| (key.as_bytes(), value.as_bytes(), at));
    let (tree, problems) = Tree::from_flat("/havip/", keys);
    assert!(problems.iter().all(|problem| !problem.is_error()), "{problems:?}");
    tree
}

fn gw1() -> NodeName {
    NodeName::new("gw1").unwrap()
}

fn built_on(tree: &Tree, previous: Option<&Config>) -> Outcome {
    build(&Input {
        tree,
        node: &gw1(),
        previous,
        policy: &Policy::default(),
        facts: &Facts::default(),
    })
}

fn built(tree: &Tree) -> Outcome {
    built_on(tree, None)
}

fn errors(outcome: &Outcome) -> Vec<String> {
    outcome.problems.iter().filter(|p| p.is_error()).map(ToString::to_string).collect()
}

/// The configuration of a tree that has no errors.
#[track_caller]
fn right(tree: &Tree) -> Config {
    let outcome = built(tree);
    assert_eq!(errors(&outcome), [] as [String; 0]);
    outcome.config
}

fn router<'a>(config: &'a Config, name: &str) -> &'a Router {
    &config.routers[&RouterName::new(name).unwrap()]
}

/// The seed's tables, as its scripts put them.
const SEED: &[(&str, &str)] = &[
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
];

#[test]
fn the_seeds_tables_become_its_routers() {
    let config = right(&etcd(SEED));
    assert_eq!(config.node_ip, Some("1.2.3.4".parse().unwrap()));
    let first = router(&config, "100");
    assert_eq!((first.vrid.number(), first.interface.as_str()), (100, "eth0"));
    assert_eq!(first.advert_interval, Centis(200));
    let vips: Vec<_> = first.vips.iter().map(ToString::to_string).collect();
    assert_eq!(vips, ["10.0.0.3", "10.0.0.4"]);
    let second = router(&config, "101");
    assert_eq!((second.interface.as_str(), second.advert_interval), ("eth1", Centis(300)));
    assert_eq!((second.version, second.family), (Version::V3, Family::V4));
}

#[test]
fn the_deployed_codes_spelling_is_the_same_place_and_the_readmes_wins() {
    let plural: Vec<_> = SEED
        .iter()
        .map(|(key, value)| (key.replace("virtual_router/", "virtual_routers/"), *value))
        .collect();
    let plural: Vec<_> = plural.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert_eq!(right(&etcd(&plural)), right(&etcd(SEED)));

    let keys = [
        ("/havip/virtual_routers/100/vips", "10.9.9.9", 1),
        ("/havip/virtual_router/100/vips", "10.0.0.3", 2),
    ];
    let keys = keys.iter().map(|(key, value, at)| (key.as_bytes(), value.as_bytes(), *at));
    let (tree, problems) = Tree::from_flat("/havip/", keys);
    assert_eq!(tree.get("virtual_router/100/vips").unwrap().value, Value::Text("10.0.0.3".into()));
    assert!(problems[0].to_string().contains("/havip/virtual_routers/100/vips (revision 1)"));
}

#[test]
fn toml_and_flat_keys_say_the_same() {
    let tree = local(
        r#"
        [virtual_router.default]
        interface = "eth0"
        advert_interval = 2
        [virtual_router.100]
        vips = ["10.0.0.3", "10.0.0.4"]
        [virtual_router.101]
        vips = ["10.0.0.5"]
        interface = "eth1"
        advert_interval = 3.0
        [node.gw1]
        node_ip = "1.2.3.4"
        vrids = [100, 101]
        "#,
    );
    assert_eq!(right(&tree), right(&etcd(SEED)));
}

#[test]
fn the_four_places_are_asked_in_order() {
    let places = [
        "node/gw1/virtual_router/100/priority",
        "node/gw1/virtual_router/default/priority",
        "virtual_router/100/priority",
        "virtual_router/default/priority",
    ];
    for first in 0..=places.len() {
        let mut tree = etcd(SEED);
        for (at, place) in places.iter().enumerate().skip(first) {
            let origin = Origin::Etcd { key: "test".into(), mod_revision: 1 };
            tree.insert(place, Value::Text((10 + at).to_string()), origin);
        }
        let expected = if first < places.len() { 10 + first } else { 100 };
        let priority = router(&right(&tree), "100").priority.number();
        assert_eq!(usize::from(priority), expected, "from place {first} on");
    }
}

#[test]
fn sources_are_laid_over_each_other_before_places_are_asked() {
    // The store's more special place holds against the local file's more general one.
    let store = etcd(&[SEED, &[("/havip/virtual_router/100/priority", "30")]].concat());
    let file = local("[virtual_router.default]\npriority = 70\ninterface = \"none\"\n");
    let (tree, shadows) = Tree::overlay(&file, &store);
    let config = built(&tree).config;
    assert_eq!(shadows.len(), 1);
    assert_eq!(shadows[0].path, "virtual_router/default/interface");
    assert!(config.routers.keys().all(|name| name.as_str() != "100"), "its interface is deleted");
    assert_eq!(router(&config, "101").priority.number(), 70);
}

#[test]
fn the_original_profile_is_what_its_agents_run_and_explicit_keys_win() {
    let profile = ("/havip/virtual_router/default/profile", "original");
    let config = right(&etcd(&[SEED, &[profile]].concat()));
    let original = router(&config, "100");
    assert_eq!(original.version, Version::V2);
    assert_eq!((original.priority.number(), original.preempt), (50, false));
    assert_eq!(original.auth_pass.as_ref().unwrap().reveal(), "Sylvanas");
    let config =
        right(&etcd(&[SEED, &[profile, ("/havip/virtual_router/100/priority", "60")]].concat()));
    assert_eq!(router(&config, "100").priority.number(), 60);
}

#[test]
fn each_mistake_is_named_with_its_place_and_the_way_out() {
    for (keys, place, hint) in [
        (&[("vips", "10.0.0.3"), ("vrid", "7")][..], "virtual_router/100/vrid", "delete this key"),
        (&[("vips", "10.0.0.3"), ("priority", "256")], "virtual_router/100/priority", "1 to 255"),
        (&[("vips", "10.0.0.3,fe80::1")], "virtual_router/100/vips", "vips_excluded"),
        (&[("vips", "2001:db8::1")], "virtual_router/100/vips", "fe80::/10"),
        (&[("vips", "fe80::1"), ("version", "2")], "virtual_router/100/version", "version = \"3\""),
        (&[("vips", "none")], "virtual_router/100/vips", "missing"),
        (&[("vips", ",")], "virtual_router/100/vips", "at least one"),
        (&[("vips", "10.0.0.3"), ("interface", "a/b")], "virtual_router/100/interface", "\"/\""),
        (
            &[("vips", "10.0.0.3"), ("version", "2"), ("advert_interval", "0.4")],
            "virtual_router/100/advert_interval",
            "whole seconds",
        ),
        (&[("vips", "10.0.0.3"), ("accept", "false")], "virtual_router/100/accept", "delete it"),
        (
            &[("vips", "10.0.0.3"), ("version", "2"), ("auth_pass", "123456789")],
            "virtual_router/100/auth_pass",
            "1 to 8 bytes",
        ),
        (&[("vips", "10.0.0.3"), ("profile", "x")], "virtual_router/100/profile", "original"),
        (&[("vips", "127.0.0.1")], "virtual_router/100/vips", "loopback"),
    ] {
        let mut all = vec![
            ("/havip/node/gw1/vrids".to_owned(), "100,7"),
            ("/havip/virtual_router/default/interface".to_owned(), "eth0"),
            ("/havip/virtual_router/7/vips".to_owned(), "10.0.0.7"),
        ];
        all.extend(keys.iter().map(|(key, v)| (format!("/havip/virtual_router/100/{key}"), *v)));
        let all: Vec<_> = all.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let outcome = built(&etcd(&all));
        let text = errors(&outcome).join("\n");
        assert!(text.contains(place) && text.contains(hint), "{place}, {hint}:\n{text}");
        assert!(outcome.config.routers.contains_key(&RouterName::new("7").unwrap()), "{text}");
        assert_eq!(outcome.config.routers.len(), 1, "{text}");
    }
}

#[test]
fn names_and_vrids_fit() {
    for (name, vrid, fits) in [
        ("0", None, false),
        ("256", None, false),
        ("255", None, true),
        ("lan", None, false),
        ("lan", Some("9"), true),
        ("lan", Some("0"), false),
        ("9", Some("9"), true),
    ] {
        let vips = format!("/havip/virtual_router/{name}/vips");
        let key = format!("/havip/virtual_router/{name}/vrid");
        let mut keys = vec![
            ("/havip/node/gw1/vrids", name),
            ("/havip/virtual_router/default/interface", "eth0"),
            (vips.as_str(), "10.0.0.3"),
        ];
        keys.extend(vrid.map(|vrid| (key.as_str(), vrid)));
        let outcome = built(&etcd(&keys));
        assert_eq!(outcome.config.routers.len() == 1, fits, "{name} {vrid:?}");
        assert_eq!(errors(&outcome).is_empty(), fits);
    }
    let outcome = built(&etcd(&[("/havip/node/gw1/vrids", "default,a/b,100")]));
    assert!(errors(&outcome)[0].contains("reserved"));
}

#[test]
fn what_may_stand_once_stands_once_and_who_runs_keeps_it() {
    let twins = |first: &str| {
        etcd(&[
            ("/havip/node/gw1/vrids", first),
            ("/havip/virtual_router/default/interface", "eth0"),
            ("/havip/virtual_router/a/vrid", "7"),
            ("/havip/virtual_router/a/vips", "10.0.0.1"),
            ("/havip/virtual_router/b/vrid", "7"),
            ("/havip/virtual_router/b/vips", "10.0.0.2"),
            ("/havip/virtual_router/c/vrid", "8"),
            ("/havip/virtual_router/c/vips", "10.0.0.2"),
        ])
    };
    let before = right(&twins("b"));
    let outcome = built_on(&twins("a,b,c"), Some(&before));
    let names: Vec<_> = outcome.config.routers.keys().map(RouterName::as_str).collect();
    assert_eq!(names, ["b"], "b runs; a has its VRID and c its VIP");
    let text = errors(&outcome).join("\n");
    assert!(text.contains("VRID 7 of IPv4 on eth0 is router b's"), "{text}");
    assert!(text.contains("10.0.0.2 on eth0 is router b's"), "{text}");
}

#[test]
fn a_bad_router_keeps_its_last_good_form_and_the_others_follow() {
    let before = right(&etcd(SEED));
    let after = etcd(
        &[
            SEED,
            &[
                ("/havip/virtual_router/100/priority", "many"),
                ("/havip/virtual_router/101/priority", "120"),
            ],
        ]
        .concat(),
    );
    let outcome = built_on(&after, Some(&before));
    assert_eq!(router(&outcome.config, "100"), router(&before, "100"));
    assert_eq!(router(&outcome.config, "101").priority.number(), 120);
    let text = errors(&outcome).join("\n");
    assert!(text.contains("virtual_router/100/priority (revision 21)"), "{text}");
    assert!(text.contains("goes on in the form it had"), "{text}");
}

#[test]
fn only_an_explicit_word_releases_a_router() {
    let before = right(&etcd(SEED));
    let without = |gone: &str| -> Vec<(&str, &str)> {
        SEED.iter().filter(|(key, _)| !key.contains(gone)).copied().collect()
    };
    for gone in ["virtual_router/100", "node/gw1", "/havip/"] {
        let outcome = built_on(&etcd(&without(gone)), Some(&before));
        assert_eq!(outcome.config.routers, before.routers, "{gone} vanished");
        assert!(!errors(&outcome).is_empty());
    }
    let mut keys = without("vrids");
    keys.push(("/havip/node/gw1/vrids", " \n"));
    let outcome = built_on(&etcd(&keys), Some(&before));
    assert_eq!(outcome.config.routers, before.routers, "an empty text is no word");
    assert!(errors(&outcome)[0].contains("none"), "{:?}", errors(&outcome));
    for (key, value, left) in [
        ("/havip/node/gw1/vrids", "101", 1),
        ("/havip/node/gw1/vrids", "none", 0),
        ("/havip/virtual_router/100/enabled", "false", 1),
        ("/havip/node/gw1/virtual_router/default/enabled", "false", 0),
    ] {
        let mut keys = without("vrids");
        keys.push(("/havip/node/gw1/vrids", "100,101"));
        keys.retain(|(known, _)| *known != key);
        keys.push((key, value));
        let outcome = built_on(&etcd(&keys), Some(&before));
        assert_eq!(outcome.config.routers.len(), left, "{key} = {value}");
        assert_eq!(errors(&outcome), [] as [String; 0]);
    }
}

#[test]
fn the_store_cannot_take_the_box() {
    let policy = |text: &str| settings(&local(text)).0.policy;
    let facts = Facts {
        own_addresses: vec!["10.0.0.3".parse().unwrap()],
        gateways: vec!["10.0.0.5".parse().unwrap()],
    };
    let refused = |policy: &Policy, facts: &Facts| {
        let tree = etcd(SEED);
        let outcome = build(&Input { tree: &tree, node: &gw1(), previous: None, policy, facts });
        (outcome.config.routers.len(), errors(&outcome).join("\n"))
    };
    let (left, text) = refused(&Policy::default(), &facts);
    assert_eq!(left, 0, "{text}");
    assert!(text.contains("own address") && text.contains("default gateway"), "{text}");
    let (left, text) = refused(&policy("[policy]\ninterfaces = [\"eth1\"]"), &Facts::default());
    assert!(left == 1 && text.contains("[policy] interfaces"), "{text}");
    let (left, text) =
        refused(&policy("[policy]\naddresses = [\"10.0.0.4/31\"]"), &Facts::default());
    assert!(left == 1 && text.contains("[policy] addresses"), "{text}");
    let (left, text) = refused(&policy("[policy]\nfeatures = [\"vips\"]"), &Facts::default());
    assert!(left == 0 && text.contains("[policy] features"), "{text}");
    // The same from the local file is the operator's own word.
    let tree = local(
        "[node.gw1]\nvrids = [1]\n[virtual_router.1]\ninterface = \"eth0\"\nvips = [\"10.0.0.3\"]",
    );
    let policy = Policy { features: Some(Vec::new()), ..Policy::default() };
    let outcome =
        build(&Input { tree: &tree, node: &gw1(), previous: None, policy: &policy, facts: &facts });
    assert_eq!(errors(&outcome), [] as [String; 0]);
}

#[test]
fn an_unknown_key_is_an_error_in_the_local_file_and_a_warning_in_the_store() {
    let text =
        "[node.gw1]\nvrids = [1]\n\n[virtual_router.1]\ninterface = \"eth0\"\nvip = \"10.0.0.3\"\n";
    let (_, problems) = settings(&local(text));
    let problem = problems.iter().find(|problem| problem.is_error()).unwrap().to_string();
    assert!(problem.starts_with("havip.toml:6: error: virtual_router/1/vip: "), "{problem}");
    assert!(problem.contains("did you mean \"vips\"?"), "{problem}");
    let keys = [SEED, &[("/havip/virtual_router/100/vip", "10.0.0.9")]].concat();
    let outcome = built(&etcd(&keys));
    assert_eq!(errors(&outcome), [] as [String; 0]);
    assert!(outcome.problems.iter().any(|p| p.severity == Severity::Warning));
    for text in
        ["[havip]\nnod = \"a\"", "[etcd]\nendpoint = \"x\"", "[virtual_rooter.1]\nvips = \"\""]
    {
        let (_, problems) = settings(&local(text));
        assert!(problems.iter().any(Problem::is_error), "{text}");
    }
}

#[test]
fn a_toml_mistake_is_named_by_line_and_without_its_content() {
    let file = TomlFile::Local("havip.toml".into());
    for (text, line) in [
        ("a = 1\nauth_pass = \"s3cret", 2),
        ("[virtual_router.1]\nvips = [[\"s3cret\"]]", 2),
        ("[virtual_router.1]\n\nvips = 1979-05-27", 3),
        ("[virtual_router.\"a/b\"]\nvips = \"s3cret\"", 1),
        ("a = \"s3cret\"\na = 2", 2),
    ] {
        let problem = Tree::from_toml(text, &file).unwrap_err().to_string();
        assert!(problem.starts_with(&format!("havip.toml:{line}: ")), "{problem}");
        assert!(!problem.contains("s3cret"), "{problem}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let tree = etcd(
        &[
            SEED,
            &[
                ("/havip/virtual_router/100/auth_pass", "s3cret"),
                ("/havip/virtual_router/100/version", "2"),
            ],
        ]
        .concat(),
    );
    let outcome = built(&tree);
    assert!(!format!("{outcome:?} {tree:?}").contains("s3cret"));
    let shown = effective(&tree, &gw1());
    let pass = shown.iter().find(|shown| shown.key == "auth_pass").unwrap();
    assert_eq!(pass.value, "(hidden)");
    assert_eq!(pass.path, "virtual_router/100/auth_pass");
    let long =
        etcd(&[SEED, &[("/havip/virtual_router/100/auth_pass", "much-too-long-s3cret")]].concat());
    assert!(!format!("{:?}", built(&long)).contains("s3cret"));
}

#[test]
fn a_diff_names_what_changed_and_nothing_else() {
    let before = right(&etcd(SEED));
    assert!(diff(&before, &before).is_empty());
    let keys: Vec<_> = SEED
        .iter()
        .map(
            |(key, value)| {
                if key.ends_with("100/vips") { (*key, "10.0.0.3") } else { (*key, *value) }
            },
        )
        .chain([("/havip/virtual_router/100/priority", "7")])
        .collect();
    let diff = diff(&before, &right(&etcd(&keys)));
    assert_eq!(diff.changed, [(RouterName::new("100").unwrap(), vec!["vips", "priority"])]);
    assert!(diff.added.is_empty() && diff.removed.is_empty());
}

fn paths() -> impl proptest::strategy::Strategy<Value = Tree> {
    use proptest::prelude::*;
    let segment = "[a-z_.\" ]{1,6}|virtual_router|node|gw1|100|default|vips|priority";
    let value = prop_oneof![
        Just(Value::None),
        "[ -~]{0,12}".prop_map(|text| Value::Text(text.trim().to_owned())),
        proptest::collection::vec("[!-~]{0,6}", 0..3).prop_map(Value::List),
    ]
    .prop_filter("the text none is no text", |v| *v != Value::Text("none".into()));
    let entry = (proptest::collection::vec(segment, 2..5), value);
    proptest::collection::vec(entry, 0..12).prop_map(|entries| {
        let mut tree = Tree::default();
        let mut used: Vec<String> = Vec::new();
        for (segments, value) in entries {
            let path = segments.join("/");
            // A path is a table or a value, not both.
            let clash = |other: &String| {
                other.starts_with(&format!("{path}/")) || path.starts_with(&format!("{other}/"))
            };
            if !used.iter().any(clash) {
                tree.insert(&path, value, Origin::BuiltIn("test"));
                used.push(path);
            }
        }
        tree
    })
}

fn values(tree: &Tree) -> Vec<(String, Value)> {
    tree.below("").map(|(path, entry)| (path.to_owned(), entry.value.clone())).collect()
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_again(tree in paths()) {
        let text = to_toml(&tree);
        let read = local(&text);
        proptest::prop_assert_eq!(values(&read), values(&tree), "{}", text);
    }

    #[test]
    fn no_tree_makes_it_panic(tree in paths()) {
        let outcome = built(&tree);
        let again = built_on(&tree, Some(&outcome.config));
        proptest::prop_assert_eq!(outcome.config, again.config, "the same input changes nothing");
        let _ = settings(&tree);
        let _ = effective(&tree, &gw1());
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}=.\"'#a-z0-9_ \n]{0,200}") {
        let _ = Tree::from_toml(&text, &TomlFile::Snapshot("snapshot".into()));
    }

    #[test]
    fn no_keys_make_it_panic(
        keys in proptest::collection::vec((proptest::collection::vec(0_u8..=255, 0..40), proptest::collection::vec(0_u8..=255, 0..20)), 0..20)
    ) {
        let keys = keys.iter().map(|(key, value)| (key.as_slice(), value.as_slice(), 1));
        let (tree, _) = Tree::from_flat("/", keys);
        let _ = built(&tree);
    }

    #[test]
    fn an_overlay_holds_the_upper_and_keeps_the_rest(upper in paths(), lower in paths()) {
        let (merged, shadows) = Tree::overlay(&upper, &lower);
        for (path, entry) in upper.below("") {
            proptest::prop_assert_eq!(merged.get(path), Some(entry));
        }
        for (path, entry) in lower.below("").filter(|(path, _)| upper.get(path).is_none()) {
            proptest::prop_assert_eq!(merged.get(path), Some(entry));
        }
        for shadow in shadows {
            proptest::prop_assert!(upper.get(&shadow.path) != lower.get(&shadow.path));
        }
    }
}
