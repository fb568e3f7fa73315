//! What a mistake, a neighbour or the store cannot do to a router that runs.

use super::*;
use crate::config::{IfName, Prefix, diff};

const DEFAULT: (&str, &str) = ("/havip/virtual_router/default/interface", "eth0");
const R1: (&str, &str) = ("/havip/virtual_router/1/vips", "10.0.0.1");
const R2: (&str, &str) = ("/havip/virtual_router/2/vips", "10.0.0.2");
const BOTH: (&str, &str) = ("/havip/node/gw1/vrids", "1,2");

fn running() -> Config {
    right(&etcd(&[DEFAULT, R1, R2, BOTH]))
}

#[test]
fn a_bad_router_keeps_its_last_good_form_and_the_others_follow() {
    let before = running();
    let tree = etcd(&[
        DEFAULT,
        ("/havip/virtual_router/1/vips", "10.0.0"),
        ("/havip/virtual_router/2/vips", "10.0.0.9"),
        BOTH,
    ]);
    let Outcome { config, problems, .. } = on(&tree, Some(&before));
    assert_eq!(router(&config, "1"), router(&before, "1"));
    assert_eq!(vips(router(&config, "2")), ["10.0.0.9"]);
    let place = "/havip/virtual_router/1/vips (revision 2): error: \"10.0.0\" is not an IP address";
    assert_told(&problems, Severity::Error, place);
    let fate = "error: virtual_router/1: its keys are not right: this router goes on in the form";
    assert_told(&problems, Severity::Error, fate);

    let Outcome { config, problems, .. } = on(&tree, None);
    assert_eq!(names(&config), ["2"], "without a good form there is none to keep");
    let fate = "error: virtual_router/1: its keys are not right: this router does not run";
    assert_told(&problems, Severity::Error, fate);
}

#[test]
fn keys_that_vanish_while_they_are_listed_release_nothing() {
    let before = running();
    for (what, tree) in [
        ("the vips of one", etcd(&[DEFAULT, R2, BOTH])),
        ("the interface of all", etcd(&[R1, R2, BOTH])),
        ("all routers", etcd(&[BOTH])),
        ("the node's key", etcd(&[DEFAULT, R1, R2])),
        ("everything", etcd(&[])),
    ] {
        let Outcome { config, problems, .. } = on(&tree, Some(&before));
        assert_eq!(config, before, "{what}");
        assert!(problems.iter().any(Problem::is_error), "{what}: no alarm");
    }
    let gone = on(&etcd(&[]), Some(&before)).problems;
    assert_told(&gone, Severity::Error, "error: node/gw1/vrids: gone; a mistake is not an order");
}

#[test]
fn only_an_explicit_word_releases_a_router() {
    let before = running();
    for (what, vrids, expected) in [
        ("unlisted", "1", vec!["1"]),
        ("unlisted among empty items", ",2,,", vec!["2"]),
        ("none", "none", vec![]),
        ("none with a newline", "none\n", vec![]),
    ] {
        let tree = etcd(&[DEFAULT, R1, R2, ("/havip/node/gw1/vrids", vrids)]);
        let Outcome { config, problems, .. } = on(&tree, Some(&before));
        assert_eq!((names(&config), problems), (expected, vec![]), "{what}");
    }
    for line in ["node.gw1.vrids = []", "node.gw1.vrids = \"none\"", "node.gw1.vrids = [\"none\"]"]
    {
        let (tree, _) = Tree::overlay(&toml(line), &etcd(&[DEFAULT, R1, R2, BOTH]));
        assert_eq!(names(&on(&tree, Some(&before)).config), [""; 0], "{line}");
    }
    for place in ["virtual_router/1", "node/gw1/virtual_router/1"] {
        let enabled = (&*format!("/havip/{place}/enabled"), "false");
        let tree = etcd(&[DEFAULT, R1, R2, BOTH, enabled]);
        assert_eq!(names(&on(&tree, Some(&before)).config), ["2"], "{place}");
    }
}

#[test]
fn an_interface_that_the_box_does_not_have_moves_no_router_that_runs() {
    let before = running();
    let on_box = |names: &[&str]| {
        let names = names.iter().map(|name| IfName::new(name).unwrap());
        Facts { interfaces: Some(names.collect()), ..Facts::default() }
    };
    let wrong = ("/havip/virtual_router/default/interface", "eht0");
    let slip = etcd(&[wrong, R1, R2, BOTH]);
    let built =
        |tree: &Tree, previous, facts: &Facts| with(tree, previous, &Policy::default(), facts);
    let kept = built(&slip, Some(&before), &on_box(&["lo", "eth0"]));
    assert_eq!(kept.config, before);
    assert_eq!(kept.kept, [name("1"), name("2")].into());
    assert_told(
        &kept.problems,
        Severity::Error,
        "/havip/virtual_router/default/interface (revision 1): error: this box has no interface eht0 \
         to run on (did you mean \"eth0\"?); a router that runs on another one stays there until it has",
    );
    let once =
        kept.problems.iter().filter(|problem| problem.message.starts_with("this box has no"));
    assert_eq!(once.count(), 1, "however many routers it concerns");
    let fate =
        "error: virtual_router/2: there is no interface eht0: this router goes on in the form";
    assert_told(&kept.problems, Severity::Error, fate);
    let real = [(IfName::new("eht0").unwrap(), IfName::new("eth0").unwrap())].into();
    let by_other_name = Facts { other_names: real, ..on_box(&["eth0"]) };
    let told_of = told(&built(&slip, Some(&before), &by_other_name).problems);
    assert!(told_of.contains("(it is another name of eth0: write that)"), "{told_of}");
    // Only what it concerns is kept as it was.
    let one = etcd(&[
        DEFAULT,
        ("/havip/virtual_router/1/vips", "10.0.0.9"),
        ("/havip/node/gw1/virtual_router/2/interface", "eht0"),
        R2,
        BOTH,
    ]);
    let outcome = built(&one, Some(&before), &on_box(&["eth0"]));
    assert_eq!(vips(router(&outcome.config, "1")), ["10.0.0.9"]);
    assert_eq!(router(&outcome.config, "2"), router(&before, "2"));
    // It moves as soon as there is one, and where it has nothing to lose.
    for there in [&["eth0", "eht0"][..], &["lo"], &["eht0"]] {
        let outcome = built(&slip, Some(&before), &on_box(there));
        assert_eq!(router(&outcome.config, "1").interface.as_str(), "eht0", "{there:?}");
        assert_eq!(told(&outcome.problems), "", "{there:?}");
    }
    assert_eq!(
        router(&built(&slip, None, &on_box(&["eth0"])).config, "1").interface.as_str(),
        "eht0"
    );
    // An order is an order.
    for order in
        [("/havip/node/gw1/vrids", "none"), ("/havip/virtual_router/default/enabled", "no")]
    {
        let tree = etcd(&[wrong, R1, R2, ("/havip/node/gw1/vrids", "1,2"), order]);
        assert_eq!(names(&built(&tree, Some(&before), &on_box(&["eth0"])).config), [""; 0]);
    }
}

#[test]
fn a_range_in_the_list_is_each_router_of_it_and_a_wrong_one_releases_nothing() {
    let vips: Vec<(String, String)> = (120..=125)
        .map(|vrid| (format!("/havip/virtual_router/{vrid}/vips"), format!("10.0.0.{vrid}")))
        .collect();
    let listed = |vrids: &str, before: Option<&Config>| {
        let keys = vips.iter().map(|(key, value)| (&**key, &**value));
        let keys: Vec<_> = keys.chain([DEFAULT, ("/havip/node/gw1/vrids", vrids)]).collect();
        on(&etcd(&keys), before)
    };
    let before = listed("120-123, 125", None).config;
    assert_eq!(names(&before), ["120", "121", "122", "123", "125"]);
    let all = listed("120-125", Some(&before));
    assert_eq!((names(&all.config).len(), told(&all.problems)), (6, String::new()));
    for wrong in ["125-120", "120-300", "120-125-130", "0-125"] {
        let Outcome { config, problems, .. } = listed(wrong, Some(&all.config));
        assert_eq!(config, all.config, "{wrong}");
        let place = "/havip/node/gw1/vrids (revision 8): error: ";
        assert_told(&problems, Severity::Error, place);
    }
    let twice = listed("120-122,121-125", Some(&before));
    assert_eq!(names(&twice.config).len(), 6);
    assert_told(
        &twice.problems,
        Severity::Warning,
        "/havip/node/gw1/vrids (revision 8): warning: 121",
    );
}

#[test]
fn a_node_that_nothing_is_said_of_is_told_with_the_names_that_there_are() {
    let other = |node: &str| (format!("/havip/node/{node}/vrids"), "1,2");
    for (others, way_out) in [
        (vec!["gw2"], "did you mean \"gw2\"?"),
        (vec!["north", "south"], "correct [havip] node; known: north, south"),
        (vec![], "list its routers there"),
    ] {
        let others: Vec<(String, &str)> = others.into_iter().map(other).collect();
        let keys: Vec<(&str, &str)> = others.iter().map(|(key, value)| (&**key, *value)).collect();
        let Outcome { config, problems, .. } = on(&etcd(&keys), None);
        assert_eq!(names(&config), [""; 0]);
        let beginning = "error: node/gw1/vrids: missing, so node gw1 runs no router; ";
        assert_told(&problems, Severity::Error, beginning);
        assert!(told(&problems).contains(way_out), "{}", told(&problems));
    }
    assert_eq!(told(&on(&etcd(&[("/havip/node/gw1/vrids", "none")]), None).problems), "");
}

#[test]
fn a_router_that_is_listed_and_does_not_run_says_why() {
    let tree = etcd(&[
        DEFAULT,
        R1,
        ("/havip/virtual_router/2/vips", "10.0.0"),
        ("/havip/virtual_router/3/vips", "10.0.0.1"),
        ("/havip/virtual_router/4/vips", "10.0.0.4"),
        ("/havip/virtual_router/4/enabled", "false"),
        ("/havip/node/gw1/vrids", "1,2,3,4"),
    ]);
    let outcome = on(&tree, None);
    let idle: Vec<String> =
        outcome.idle.iter().map(|(name, why)| format!("{name} {why}")).collect();
    assert_eq!(
        idle,
        [
            "2 refused: its keys are not right",
            "3 refused: it cannot run beside the others",
            "4 disabled: enabled = false at /havip/virtual_router/4/enabled (revision 6)",
        ]
    );
    // Who goes on in the form it had runs.
    let kept =
        on(&etcd(&[("/havip/virtual_router/1/vips", "x"), DEFAULT, BOTH, R2]), Some(&running()));
    assert!(kept.idle.is_empty() && names(&kept.config) == ["1", "2"]);
}

#[test]
fn a_garbled_or_empty_list_releases_nothing() {
    let before = running();
    for (vrids, beginning) in [
        ("1 2", "/havip/node/gw1/vrids (revision 4): error: \"1 2\": a router's name has letters"),
        ("2,l!", "/havip/node/gw1/vrids (revision 4): error: not clear, so what is no longer"),
        ("", "/havip/node/gw1/vrids (revision 4): error: empty; set it to \"none\""),
        (",", "/havip/node/gw1/vrids (revision 4): error: empty"),
    ] {
        let tree = etcd(&[DEFAULT, R1, R2, ("/havip/node/gw1/vrids", vrids)]);
        let Outcome { config, problems, .. } = on(&tree, Some(&before));
        assert_eq!(config, before, "{vrids:?}");
        assert_told(&problems, Severity::Error, beginning);
    }
    let many: Vec<String> = (0..5000).map(|n| format!("r{n}")).collect();
    let many = many.join(",");
    let tree = etcd(&[DEFAULT, R1, R2, ("/havip/node/gw1/vrids", &many)]);
    let Outcome { config, problems, .. } = on(&tree, Some(&before));
    assert_eq!(config, before);
    assert!(problems.len() <= 1001, "{} problems", problems.len());
}

#[test]
fn who_runs_keeps_what_a_newcomer_or_a_neighbour_asks_for() {
    let before = running();
    let newcomer = ("/havip/virtual_router/0a/vips", "10.0.0.2");
    let vrid = ("/havip/virtual_router/0a/vrid", "9");
    let all = ("/havip/node/gw1/vrids", "0a,1,2");
    let Outcome { config, problems, .. } =
        on(&etcd(&[DEFAULT, R1, R2, newcomer, vrid, all]), Some(&before));
    assert_eq!(config, before, "although its name comes first");
    let place = "/havip/virtual_router/0a/vips (revision 4): error: 10.0.0.2 on eth0 is router 2's";
    assert_told(&problems, Severity::Error, place);

    // Router 1 asks for router 2's address, which did nothing.
    let greedy = ("/havip/virtual_router/1/vips", "10.0.0.1,10.0.0.2");
    let Outcome { config, problems, .. } = on(&etcd(&[DEFAULT, greedy, R2, BOTH]), Some(&before));
    assert_eq!(config, before);
    let fate = "error: virtual_router/1: it cannot run beside the others: this router goes on in";
    assert_told(&problems, Severity::Error, fate);
}

#[test]
fn an_address_moves_from_one_router_to_another_in_one_revision() {
    let tree = etcd(&[
        DEFAULT,
        ("/havip/virtual_router/1/vips", "10.0.0.2"),
        ("/havip/virtual_router/2/vips", "10.0.0.1"),
        BOTH,
    ]);
    let before = running();
    let Outcome { config, problems, .. } = on(&tree, Some(&before));
    assert_eq!(problems, []);
    assert_eq!(
        (vips(router(&config, "1")), vips(router(&config, "2"))),
        (vec!["10.0.0.2".to_owned()], vec!["10.0.0.1".to_owned()])
    );
    // And to one that takes its place, from one that is released.
    let tree = etcd(&[
        DEFAULT,
        ("/havip/virtual_router/3/vips", "10.0.0.1,10.0.0.2"),
        ("/havip/node/gw1/vrids", "3"),
    ]);
    let Outcome { config, problems, .. } = on(&tree, Some(&before));
    assert_eq!((names(&config), problems), (vec!["3"], vec![]));
}

#[test]
fn a_router_that_falls_back_gets_back_what_another_was_to_have() {
    // 1 gives its address to 2, which is bad for another reason: 1 asks for 3's. So 1 falls back
    // to the form it had, and 2 must leave it its address.
    let r3 = ("/havip/virtual_router/3/vips", "10.0.0.3");
    let all = ("/havip/node/gw1/vrids", "1,2,3");
    let before = right(&etcd(&[DEFAULT, R1, R2, r3, all]));
    let tree = etcd(&[
        DEFAULT,
        ("/havip/virtual_router/1/vips", "10.0.0.3"),
        ("/havip/virtual_router/2/vips", "10.0.0.1"),
        r3,
        all,
    ]);
    let Outcome { config, problems, .. } = on(&tree, Some(&before));
    assert_eq!(config, before);
    assert_eq!(problems.iter().filter(|problem| problem.is_error()).count(), 4);
}

#[test]
fn the_store_cannot_take_the_box() {
    let facts = Facts {
        own_addresses: vec!["192.0.2.10".parse().unwrap()],
        gateways: vec!["192.0.2.1".parse().unwrap()],
        ..Facts::default()
    };
    let policy = Policy {
        interfaces: Some(vec!["eth*".into(), "lo".into()]),
        addresses: Some(vec![
            Prefix { ip: "192.0.2.0".parse().unwrap(), len: 24 },
            Prefix { ip: "10.0.0.0".parse().unwrap(), len: 8 },
        ]),
        features: Some(vec!["vips".into(), "interface".into()]),
    };
    let (free, own) = (Policy::default(), Facts::default());
    let interface = "virtual_router/1/interface";
    let vips = "virtual_router/1/vips";
    for (what, key, value, policy, facts, why) in [
        ("loopback", interface, "lo", &free, &own, "the store may not put VIPs on lo"),
        ("loopback, although listed", interface, "lo", &policy, &own, "the store may not put"),
        ("another interface", interface, "wan0", &policy, &own, "the store may not use wan0"),
        ("its address", vips, "192.0.2.10", &free, &facts, "192.0.2.10 is this box's own address"),
        ("its gateway", vips, "192.0.2.1", &free, &facts, "192.0.2.1 is this box's default gate"),
        ("half of all", vips, "10.0.0.1/1", &free, &own, "10.0.0.1/1: the store may not route"),
        ("another network", vips, "10.1.1.1,11.1.1.1", &policy, &own, "the store may not use 11."),
        ("a wider one", vips, "192.0.2.9/23", &policy, &own, "the store may not use 192.0.2.9/23"),
        ("a key", "virtual_router/1/priority", "9", &policy, &own, "the store may not set prio"),
        ("multicast", vips, "224.0.0.18", &free, &own, "224.0.0.18: a multicast address"),
        ("everything", vips, "10.0.0.1/0", &free, &own, "\"10.0.0.1/0\": the prefix length is"),
        ("a broadcast", vips, "10.0.0.255/24", &free, &own, "10.0.0.255/24: a broadcast address"),
        ("a network itself", vips, "10.0.0.0/24", &free, &own, "10.0.0.0/24: the address of a"),
    ] {
        let (good, _) = Tree::overlay(
            &etcd(&[(&*format!("/havip/{key}"), value)]),
            &etcd(&[DEFAULT, R1, ("/havip/node/gw1/vrids", "1")]),
        );
        let Outcome { config, problems, .. } = with(&good, None, policy, facts);
        assert_eq!(names(&config), [""; 0], "{what}");
        let beginning = format!("/havip/{key} (revision 1): error: {why}");
        assert_told(&problems, Severity::Error, &beginning);
    }
}

#[test]
fn what_stands_in_the_local_file_is_not_bound_by_the_policy() {
    let policy =
        Policy { interfaces: Some(vec![]), addresses: Some(vec![]), features: Some(vec![]) };
    let gateways = vec!["10.0.0.3".parse().unwrap()];
    let facts = Facts { gateways, ..Facts::default() };
    let local = router_100("interface = \"lo\"\nvips = [\"10.0.0.3/7\"]\n");
    let outcome = with(&local, None, &policy, &facts);
    assert_eq!((names(&outcome.config), outcome.problems), (vec!["100"], vec![]));

    // Its interface does not make a VIP of the store's harmless.
    let (tree, _) = Tree::overlay(
        &router_100("interface = \"eth0\""),
        &etcd(&[("/havip/virtual_router/100/vips", "10.0.0.3")]),
    );
    let policy = Policy::default();
    let problems = with(&tree, None, &policy, &facts).problems;
    let place =
        "/havip/virtual_router/100/vips (revision 1): error: 10.0.0.3 is this box's default";
    assert_told(&problems, Severity::Error, place);
}

#[test]
fn a_thousand_slips_are_counted_and_not_told_one_by_one() {
    let keys: Vec<String> = (0..5000).map(|n| format!("/havip/virtual_router/1/key{n}")).collect();
    let mut keys: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "x")).collect();
    keys.extend([DEFAULT, R1, ("/havip/node/gw1/vrids", "1")]);
    let Outcome { config, problems, .. } = on(&etcd(&keys), None);
    assert_eq!((names(&config), problems.len()), (vec!["1"], 101));
    assert_told(&problems, Severity::Warning, "warning: 4900 more problems like these");
}

#[test]
fn a_difference_names_its_keys_and_nothing_differs_from_itself() {
    let before = running();
    assert!(diff(&before, &before).is_empty());
    let tree = etcd(&[
        DEFAULT,
        R1,
        ("/havip/virtual_router/1/priority", "7"),
        ("/havip/virtual_router/1/interface", "eth1"),
        ("/havip/virtual_router/3/vips", "10.0.0.3"),
        ("/havip/node/gw1/vrids", "1,3"),
    ]);
    let after = right(&tree);
    let diff = diff(&before, &after);
    assert_eq!((diff.added, diff.removed), (vec![name("3")], vec![name("2")]));
    assert_eq!(diff.changed, [(name("1"), vec!["interface", "priority"])]);
    assert_eq!(router(&after, "1").interface, IfName::new("eth1").unwrap());
}

/// What comes of a store in which each key has the revision given beside it.
fn restored(keys: &[(&str, &str, i64)], vanished: Vanished) -> Outcome {
    restored_with(keys, vanished, &["1", "2"])
}

/// The same, where the list has had these since.
fn restored_with(keys: &[(&str, &str, i64)], vanished: Vanished, since: &[&str]) -> Outcome {
    let since = since.iter().map(|of| name(of)).collect();
    let flat = keys.iter().map(|(key, value, rev)| (key.as_bytes(), value.as_bytes(), *rev));
    let (tree, problems) = Tree::from_flat("/havip/", flat);
    assert_eq!(problems, []);
    let (policy, facts) = (Policy::default(), Facts::default());
    let previous = Some(&running());
    let (node, listed_since) = (&gw1(), Some(&since));
    let (tree, policy, facts) = (&tree, &policy, &facts);
    build(&Input { tree, node, previous, policy, facts, vanished, listed_since })
}

#[test]
fn a_restored_store_takes_nothing_away_until_someone_who_knows_it_says_so() {
    let default = (DEFAULT.0, DEFAULT.1, 1);
    let (r1, r2, both) = ((R1.0, R1.1, 2), (R2.0, R2.1, 3), (BOTH.0, BOTH.1, 4));
    let vrids = BOTH.0;
    let disabled = "/havip/virtual_router/2/enabled";
    let all = || names(&running()).into_iter().map(str::to_owned).collect::<Vec<_>>();
    for (what, keys, held, left) in [
        ("the same", vec![default, r1, r2, both], vec![], all()),
        ("one not listed yet", vec![default, r1, r2, (vrids, "1", 4)], vec!["2"], all()),
        ("none listed", vec![default, r1, r2, (vrids, "none", 4)], vec!["1", "2"], all()),
        ("one disabled", vec![default, r1, r2, both, (disabled, "false", 5)], vec!["2"], all()),
        ("nothing at all", vec![], vec!["1", "2"], all()),
        ("ordered since", vec![default, r1, r2, (vrids, "1", 9)], vec![], vec!["1".into()]),
        (
            "disabled since",
            vec![default, r1, r2, both, (disabled, "false", 9)],
            vec![],
            vec!["1".into()],
        ),
    ] {
        let outcome = restored(&keys, Vanished::HoldSince(8));
        let now: Vec<&str> = outcome.held.iter().map(RouterName::as_str).collect();
        assert_eq!(now, held, "{what}");
        assert_eq!(names(&outcome.config), left, "{what}");
        let alarmed = outcome.problems.iter().filter(|problem| problem.is_error()).count();
        assert_eq!(alarmed > 0, !held.is_empty(), "{what}: {:?}", outcome.problems);
        let released = restored(&keys, Vanished::Release);
        assert!(released.held.is_empty(), "{what}");
    }
}

#[test]
fn a_restored_store_may_add_and_change_but_not_shorten_a_list_of_addresses() {
    let default = (DEFAULT.0, DEFAULT.1, 1);
    let both = (BOTH.0, BOTH.1, 4);
    let more = ("/havip/virtual_router/1/vips", "10.0.0.1,10.0.0.7", 2);
    let other = ("/havip/virtual_router/2/vips", "10.0.0.9", 3);
    let keys = [default, more, other, both];
    let Outcome { config, problems, held, .. } = restored(&keys, Vanished::HoldSince(8));
    assert_eq!(vips(router(&config, "1")), ["10.0.0.1", "10.0.0.7"]);
    assert_eq!(vips(router(&config, "2")), ["10.0.0.2"]);
    assert_eq!(held, [name("2")].into());
    let told = "error: virtual_router/2: etcd was restored or replaced, and this router would lose";
    assert_told(&problems, Severity::Error, told);
    let since = [default, more, (other.0, other.1, 9), both];
    let Outcome { config, held, .. } = restored(&since, Vanished::HoldSince(8));
    assert_eq!(vips(router(&config, "2")), ["10.0.0.9"]);
    assert!(held.is_empty());
}

#[test]
fn what_an_operator_lets_go_is_what_is_gone_and_not_what_is_wrong() {
    let default = (DEFAULT.0, DEFAULT.1, 1);
    let both = (BOTH.0, BOTH.1, 4);
    let wrong = ("/havip/virtual_router/1/vips", "10.0.0", 2);
    let held = restored(&[default, wrong, both], Vanished::Hold);
    assert_eq!(held.config, running());
    assert_eq!(held.held, [name("2")].into());
    let released = restored(&[default, wrong, both], Vanished::Release);
    assert_eq!(names(&released.config), ["1"]);
    assert_eq!(names(&restored(&[], Vanished::Release).config), [""; 0]);
}

#[test]
fn who_changes_a_restored_list_knows_only_of_what_it_had() {
    let default = (DEFAULT.0, DEFAULT.1, 1);
    let (r1, r2, r3) =
        ((R1.0, R1.1, 2), (R2.0, R2.1, 3), ("/havip/virtual_router/3/vips", "10.0.0.3", 9));
    let appended = (BOTH.0, "1,3", 9);
    let keys = [default, r1, r2, r3, appended];
    let never = restored_with(&keys, Vanished::HoldSince(8), &["1"]);
    assert_eq!(never.held, [name("2")].into(), "router 2 was not in the list that was changed");
    assert_eq!(names(&never.config), ["1", "2", "3"]);
    let known = restored_with(&keys, Vanished::HoldSince(8), &["1", "2"]);
    assert_eq!((known.held.len(), names(&known.config)), (0, vec!["1", "3"]));
    let none = [default, r1, r2, (BOTH.0, "none", 9)];
    assert_eq!(names(&restored_with(&none, Vanished::HoldSince(8), &[]).config), [""; 0]);
}
