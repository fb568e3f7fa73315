//! What holds for every tree and every text.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::config::key::ROUTER_KEYS;
use crate::config::tree::{Origin, Value};
use crate::config::{check_all, diff, effective, settings, to_flat, to_toml};

type Flat = Vec<(String, String)>;

/// Values that mean something somewhere, and some that mean nothing anywhere.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec![
            "",
            "none",
            "0",
            "1",
            "2",
            "3",
            "7",
            "100",
            "255",
            "0.5",
            "true",
            "false",
            "original",
            "auto",
            "both",
            "forever",
            "eth0",
            "eth1",
            "lo",
            "10.0.0.1",
            "10.0.0.2",
            "10.0.0.1/24",
            "10.0.0.1,10.0.0.2",
            "10.0.0.2,10.0.0.3",
            "fe80::1",
            "fe80::1,2001:db8::1",
            "::1",
            "::ffff:10.0.0.1",
            "1,2",
            "1,2,web",
            "1,,2",
            "x y",
            "Sylvanas",
            "a,b",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,12}",
        any::<String>(),
    ]
}

/// Paths that mean something, nearly so, or nothing.
fn any_path() -> impl Strategy<Value = String> {
    let mut keys: Vec<&str> = ROUTER_KEYS.iter().map(|key| key.name).collect();
    keys.extend(["vip", "node_ip", "vrids", "namespace", "endpoints", "interfaces"]);
    let place = select(vec![
        "virtual_router/1",
        "virtual_router/2",
        "virtual_router/web",
        "virtual_router/default",
        "virtual_routers/1",
        "virtual_routers/default",
        "node/gw1",
        "node/gw1/virtual_router/1",
        "node/gw1/virtual_routers/2",
        "node/gw1/virtual_router/default",
        "node/gw2",
        "binding/10.0.0.1",
        "havip",
        "etcd",
        "policy",
    ]);
    prop_oneof![
        8 => (place, select(keys)).prop_map(|(place, key)| format!("{place}/{key}")),
        1 => Just("node/gw1/vrids".to_owned()),
        1 => "[a-z./\" ]{1,12}",
        1 => any::<String>(),
    ]
}

fn any_flat() -> impl Strategy<Value = Flat> {
    vec((any_path(), any_value()), 0..24)
}

/// Two or three routers that run, with something missing and something odd beside them.
fn any_store() -> impl Strategy<Value = Flat> {
    let good = [
        ("virtual_router/default/interface", "eth0"),
        ("virtual_router/1/vips", "10.0.0.1"),
        ("virtual_router/2/vips", "10.0.0.2,10.0.0.3"),
        ("virtual_router/web/vips", "10.0.0.4"),
        ("virtual_router/web/vrid", "7"),
        ("node/gw1/vrids", "1,2,web"),
    ];
    (vec(0..10u8, good.len()), any_flat()).prop_map(move |(keep, odd)| {
        let kept = good.iter().zip(keep).filter(|(_, keep)| *keep > 0);
        let kept = kept.map(|((path, value), _)| ((*path).to_owned(), (*value).to_owned()));
        kept.chain(odd).collect()
    })
}

fn flat_tree(keys: &[(String, String)]) -> Tree {
    let keys: Vec<(String, &String)> =
        keys.iter().map(|(path, value)| (format!("/havip/{path}"), value)).collect();
    let keys = keys.iter().zip(1..).map(|((k, v), rev)| (k.as_bytes(), v.as_bytes(), rev));
    Tree::from_flat("/havip/", keys).0
}

/// Without origins.
fn values(tree: &Tree) -> Vec<(String, Value)> {
    tree.below("").map(|(path, entry)| (path.to_owned(), entry.value.clone())).collect()
}

fn read(text: &str) -> Tree {
    Tree::from_toml(text, &TomlFile::Local("conf".into()))
        .map_or_else(|p| panic!("{p}"), |(t, _)| t)
}

/// A router that is right, most of the time, as TOML and as flat values.
fn any_router() -> impl Strategy<Value = Vec<(&'static str, String, String)>> {
    let optional = |key, texts: &[&'static str], native: bool| {
        let one = select(texts.to_vec());
        option::of(one).prop_map(move |text| {
            let text = text?;
            let toml = if native { text.to_owned() } else { format!("\"{text}\"") };
            Some((key, toml, text.to_owned()))
        })
    };
    let vips = vec((1..20u8, 1..=32u8), 1..4).prop_map(|vips| {
        let vips: Vec<String> =
            vips.iter().map(|(ip, len)| format!("10.0.0.{ip}/{}", len.max(&24))).collect();
        let list: Vec<String> = vips.iter().map(|vip| format!("\"{vip}\"")).collect();
        Some(("vips", format!("[{}]", list.join(", ")), vips.join(",")))
    });
    let keys = (
        vips,
        optional("interface", &["eth0", "eth1", "eth2"], false),
        optional("priority", &["1", "100", "255", "256"], true),
        optional("version", &["2", "3"], true),
        optional("preempt", &["true", "false"], true),
        optional("enabled", &["true", "false"], true),
        optional("advert_interval", &["1", "0.5", "40.95", "2"], true),
        optional("auth_pass", &["Sylvanas", "a,b"], false),
        optional("profile", &["original", "none"], false),
        optional("checksum", &["auto", "both", "rfc9568"], false),
    );
    keys.prop_map(|(a, b, c, d, e, f, g, h, i, j)| {
        [a, b, c, d, e, f, g, h, i, j].into_iter().flatten().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn building_any_tree_over_any_other_neither_panics_nor_releases_by_mistake(
        before in any_store(), after in any_store(),
    ) {
        let before = on(&flat_tree(&before), None).config;
        let tree = flat_tree(&after);
        let Outcome { config, problems, .. } = on(&tree, Some(&before));
        let _ = (check_all(&tree, &Policy::default(), &Facts::default(), false), settings(&tree));
        let _ = effective(&tree, &gw1());
        for gone in diff(&before, &config).removed {
            let vrids = tree.get("node/gw1/vrids").map(|entry| entry.value.clone());
            let listed = vrids.is_none_or(|vrids| vrids.items().any(|item| item == gone.as_str()));
            let off = ["node/gw1/virtual_router", "virtual_router"].iter().any(|place| {
                let own = tree.set(&format!("{place}/{gone}/enabled"));
                own.is_some() || tree.set(&format!("{place}/default/enabled")).is_some()
            });
            prop_assert!(!listed || off, "{gone} was released:\n{}", told(&problems));
        }
        prop_assert!(diff(&config, &config).is_empty());
        // Nothing changes without a change.
        let again = on(&tree, Some(&config)).config;
        prop_assert_eq!(again, config);
    }

    #[test]
    fn no_two_routers_have_the_same_vrid_or_vip_on_one_interface(
        before in any_store(), after in any_store(),
    ) {
        let before = on(&flat_tree(&before), None).config;
        let config = on(&flat_tree(&after), Some(&before)).config;
        let mut ids = std::collections::BTreeSet::new();
        let mut ips = std::collections::BTreeSet::new();
        for router in config.routers.values() {
            prop_assert!(ids.insert((router.interface.clone(), router.family, router.vrid)));
            for vip in router.vips.iter().chain(&router.vips_excluded) {
                prop_assert!(ips.insert((router.interface.clone(), vip.ip)));
            }
        }
    }

    #[test]
    fn flat_keys_and_toml_of_the_same_tree_give_the_same_configuration(
        routers in vec(any_router(), 1..4),
    ) {
        let mut text = String::from("virtual_router.default.interface = \"eth9\"\n");
        let mut keys = vec![("virtual_router/default/interface".to_owned(), "eth9".to_owned())];
        let names: Vec<String> = (1..=routers.len()).map(|n| n.to_string()).collect();
        keys.push(("node/gw1/vrids".to_owned(), names.join(",")));
        text += &format!("node.gw1.vrids = [{}]\n", names.join(", "));
        for (name, router) in names.iter().zip(&routers) {
            text += &format!("[virtual_router.{name}]\n");
            for (key, native, flat) in router {
                text += &format!("{key} = {native}\n");
                keys.push((format!("virtual_router/{name}/{key}"), flat.clone()));
            }
        }
        let native = read(&text);
        let flat = flat_tree(&keys);
        prop_assert_eq!(on(&native, None).config, on(&flat, None).config);
        let imported: Flat = to_flat(&native, "").0;
        prop_assert_eq!(values(&flat_tree(&imported)), values(&flat));
    }

    #[test]
    fn what_is_written_is_read_back_the_same(
        keys in any_flat(), items in vec(any::<String>(), 0..4),
    ) {
        let mut tree = flat_tree(&keys);
        let items: Vec<String> = items.iter().map(|item| item.trim().to_owned()).collect();
        if !items.iter().eq(["none"]) {
            tree.insert("node/gw9/vrids", Value::List(items), Origin::BuiltIn("test"));
        }
        let text = to_toml(&tree);
        prop_assert_eq!(values(&read(&text)), values(&tree), "{}", text);
    }

    #[test]
    fn a_tree_laid_over_itself_or_nothing_stays_and_overlays_can_be_grouped(
        a in any_flat(), b in any_flat(), c in any_flat(),
    ) {
        let [a, b, c] = [a, b, c].map(|keys| flat_tree(&keys));
        let over = |upper: &Tree, lower: &Tree| Tree::overlay(upper, lower).0;
        let empty = Tree::default();
        let (same, shadows) = Tree::overlay(&a, &a);
        prop_assert_eq!((&same, shadows.len()), (&a, 0));
        prop_assert_eq!(&over(&a, &empty), &a);
        prop_assert_eq!(&over(&empty, &a), &a);
        prop_assert_eq!(over(&a, &over(&b, &c)), over(&over(&a, &b), &c));
        let (merged, shadows) = Tree::overlay(&a, &b);
        for (path, entry) in merged.below("") {
            prop_assert_eq!(Some(entry), a.get(path).or_else(|| b.get(path)));
        }
        prop_assert!(shadows.iter().all(|shadow| a.get(&shadow.path) != b.get(&shadow.path)));
    }

    #[test]
    fn no_text_makes_the_toml_reader_panic(
        bytes in vec(any::<u8>(), 0..200), text in "[\\[\\]{}=.,\"'#\\\\a-z0-9\n -]{0,80}",
    ) {
        for text in [&*String::from_utf8_lossy(&bytes), &text] {
            if let Ok((tree, _)) = Tree::from_toml(text, &TomlFile::Local("conf".into())) {
                let _ = (settings(&tree), on(&tree, None));
                prop_assert_eq!(values(&read(&to_toml(&tree))), values(&tree));
            }
        }
    }

    #[test]
    fn no_flat_key_makes_the_reader_panic(
        keys in vec((vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40), any::<i64>()), 0..8),
        prefix in "[/a]{0,3}",
    ) {
        let keys = keys.iter().map(|(key, value, rev)| (&key[..], &value[..], *rev));
        let (tree, _) = Tree::from_flat(&prefix, keys);
        prop_assert_eq!(values(&read(&to_toml(&tree))), values(&tree));
    }

    #[test]
    fn no_secret_is_shown(pass in "[A-Z]{6,12}") {
        let rest = "version = 2\ninterface = \"eth0\"\nvips = \"10.0.0.1\"\n";
        let tree = router_100(&format!("{rest}auth_pass = \"{pass}\"\n"));
        let outcome = on(&tree, None);
        let shown = effective(&tree, &gw1());
        let all = format!("{tree:?} {outcome:?} {shown:?} {}", told(&outcome.problems));
        prop_assert!(!all.contains(&pass), "{all}");
    }
}
