//! From flat keys and TOML to a tree and back, and one tree over another.

use super::*;
use crate::config::tree::Value;
use crate::config::{check_all, effective, to_flat, to_toml, utf8};

fn value<'a>(tree: &'a Tree, path: &str) -> Option<&'a Value> {
    tree.get(path).map(|entry| &entry.value)
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn list(items: &[&str]) -> Value {
    Value::List(items.iter().map(|item| (*item).to_owned()).collect())
}

#[test]
fn flat_values_lose_the_white_space_that_scripts_leave_and_none_is_not_set() {
    let tree = etcd(&[
        ("/havip/virtual_router/default/interface", " eth0\n"),
        ("/havip/virtual_router/default/check_rise", "none\n"),
        ("/other/virtual_router/1/vips", "10.0.0.1"),
    ]);
    assert_eq!(value(&tree, "virtual_router/default/interface"), Some(&text("eth0")));
    assert_eq!(value(&tree, "virtual_router/default/check_rise"), Some(&Value::None));
    assert!(tree.set("virtual_router/default/check_rise").is_none());
    assert_eq!(tree.below("").count(), 2, "what is outside the prefix is not read");
}

#[test]
fn keys_that_cannot_be_havips_are_left_out_by_name() {
    let long = format!("/havip/{}", "x".repeat(1024));
    let big = "x".repeat(1024 * 1024 + 1);
    let deep = format!("/havip{}", "/x".repeat(17));
    for (key, content, why) in [
        (long.as_bytes(), "v", "a key of 1031 bytes; havip reads keys of at most 1024"),
        (
            b"/havip/a",
            &big,
            "a value of 1048577 bytes; havip reads values of at most 1048576 (1 MiB)",
        ),
        (b"/havip/\xff", "v", "the key is not UTF-8"),
        (b"/havip/a//b", "v", "an empty segment in the key"),
        (b"/havip/a/", "v", "an empty segment in the key"),
        (b"/havip/", "v", "an empty segment in the key"),
        (b"/havip/a\x1b[31m", "v", "a control character in the key"),
        (deep.as_bytes(), "v", "more segments than any key that havip knows"),
    ] {
        let good: (&[u8], &[u8], i64) = (b"/havip/node/gw1/vrids", b"1", 2);
        let (tree, problems) = Tree::from_flat("/havip/", [(key, content.as_bytes(), 1), good]);
        assert_eq!(tree.below("").count(), 1, "{why}");
        let [problem] = problems.as_slice() else { panic!("{why}: {}", told(&problems)) };
        let shown = problem.to_string();
        assert!(shown.contains(why) && shown.contains("(revision 1)"), "{shown}");
        assert!(!shown.contains('\u{1b}') && shown.len() < 1200, "{shown:?}");
    }
    let not_utf8 = "/havip/a";
    let entry = (not_utf8.as_bytes(), &b"\xff\xfe"[..], 1);
    assert!(told(&Tree::from_flat("/havip/", [entry]).1).contains("the value is not UTF-8"));
    let control = b"/havip/a\x1b[31m".as_slice();
    let (_, problems) = Tree::from_flat("/havip/", [(control, b"v".as_slice(), 1)]);
    assert!(told(&problems).starts_with("/havip/a\\u001B[31m (revision 1): "), "{problems:?}");
}

#[test]
fn a_value_has_the_same_bound_in_etcd_and_in_toml() {
    let most = "x".repeat(1024 * 1024);
    assert_eq!(etcd(&[("/havip/a/b", &most)]).below("").count(), 1);
    assert_eq!(toml(&format!("[a]\nb = \"{most}\"")).below("").count(), 1);
    // Of a list, what it is as one text counts.
    let list =
        |last: usize| format!("[a]\nb = [\"{}\", \"{}\"]", "x".repeat(1_000_000), "x".repeat(last));
    assert_eq!(toml(&list(48_575)).below("").count(), 1);
    let file = TomlFile::Local("conf".into());
    for text in [format!("[a]\nb = \"{most}x\""), list(48_576)] {
        let error = Tree::from_toml(&text, &file).unwrap_err().to_string();
        let expected = "conf:2: error: a/b: a value of 1048577 bytes; \
                        havip reads values of at most 1048576 (1 MiB)";
        assert_eq!(error, expected);
    }
    // So many VIPs that 64 KiB were too few.
    let vips: Vec<String> =
        (0..8000).map(|n| format!("10.0.{}.{}", n / 250, n % 250 + 1)).collect();
    let vips = vips.join(",");
    assert!(vips.len() > 64 * 1024);
    let tree = etcd(&[
        ("/havip/virtual_router/1/vips", "10.9.0.1"),
        ("/havip/virtual_router/1/vips_excluded", &vips),
        ("/havip/virtual_router/1/interface", "eth0"),
        ("/havip/node/gw1/vrids", "1"),
    ]);
    assert_eq!(router(&right(&tree), "1").vips_excluded.len(), 8000);
}

#[test]
fn a_file_that_is_no_utf8_is_refused_with_its_line() {
    let file = TomlFile::Local("conf".into());
    let error = utf8(b"[havip]\n# K\xf6ln\nnode = \"gw1\"\n", &file).unwrap_err().to_string();
    assert!(error.starts_with("conf:2: error: not UTF-8; "), "{error}");
    let error = utf8(b"\xff\xfe[\0", &file).unwrap_err().to_string();
    assert!(error.starts_with("conf:1: error: not UTF-8; "), "{error}");
    let path = std::path::Path::new("conf");
    let errors =
        super::super::sources::Local::parse(path, b"[havip]\nnode = \"\xf6\"").unwrap_err();
    assert!(told(&errors).starts_with("conf:2: error: not UTF-8; "), "{errors:?}");
}

#[test]
fn both_spellings_are_one_place_and_the_readmes_wins() {
    for order in [[0, 1], [1, 0]] {
        let keys = [
            ("/havip/virtual_router/1/vips", "10.0.0.1"),
            ("/havip/virtual_routers/1/vips", "10.0.0.2"),
        ];
        let keys = [keys[order[0]], keys[order[1]], ("/havip/virtual_routers/1/interface", "eth0")];
        let (tree, problems) = Tree::from_flat("/havip/", flat(&keys));
        assert_eq!(value(&tree, "virtual_router/1/vips"), Some(&text("10.0.0.1")));
        assert_eq!(value(&tree, "virtual_router/1/interface"), Some(&text("eth0")));
        let revision = order.iter().position(|at| *at == 1).unwrap() + 1;
        let beginning = format!(
            "/havip/virtual_routers/1/vips (revision {revision}): warning: differs from \
             /havip/virtual_router/1/vips (revision {})",
            3 - revision
        );
        assert_told(&problems, Severity::Warning, &beginning);
    }
    let same = [
        ("/havip/virtual_router/1/vips", "10.0.0.1"),
        ("/havip/virtual_routers/1/vips", "10.0.0.1\n"),
        ("/havip/node/gw1/virtual_routers/1/priority", "7"),
    ];
    let tree = etcd(&same);
    assert_eq!(value(&tree, "node/gw1/virtual_router/1/priority"), Some(&text("7")));
    assert!(toml("[virtual_routers.1]\npriority = 7").get("virtual_router/1/priority").is_some());
}

#[test]
fn toml_has_numbers_booleans_and_lists_of_its_own() {
    let tree = toml(
        "[virtual_router.100]\nvips = [\"10.0.0.3\", \" 10.0.0.4 \"]\npriority = 0xc8\n\
         preempt = false\nadvert_interval = 0.25\ncheck = \"none\"\n\
         [node]\ngw1.vrids = [100, \"web\"]\ngw2.vrids = [\"none\"]\n",
    );
    for (path, expected) in [
        ("virtual_router/100/vips", list(&["10.0.0.3", "10.0.0.4"])),
        ("virtual_router/100/priority", text("200")),
        ("virtual_router/100/preempt", text("false")),
        ("virtual_router/100/advert_interval", text("0.25")),
        ("virtual_router/100/check", Value::None),
        ("node/gw1/vrids", list(&["100", "web"])),
        ("node/gw2/vrids", Value::None),
    ] {
        assert_eq!(value(&tree, path), Some(&expected), "{path}");
    }
    assert_eq!(tree.get("node/gw1/vrids").unwrap().origin.to_string(), "conf:8");
}

#[test]
fn what_is_wrong_with_a_toml_text_is_said_with_its_line_and_not_its_content() {
    let deep = format!("{} = 1", ["x"; 17].join("."));
    let deeper = format!("x = {}1{}", "[".repeat(5000), "]".repeat(5000));
    let deepest = ["x"; 100_000].join(".") + " = 1";
    for (text, line, why) in [
        ("a = 1\nauth_pass = \"geheim\n", 2, "not TOML"),
        ("a = 1\na = \"geheim\"\n", 2, "not TOML"),
        ("[a]\nb.c = 1\n[a.b]\nd = \"geheim\"", 3, "not TOML"),
        ("\n\"a/b\" = \"geheim\"", 2, "a key has no slash"),
        ("a = 1979-05-27", 1, "a date is no value"),
        ("a = [[1]]", 1, "a list holds texts, numbers or booleans"),
        ("a = [{}]", 1, "a list holds texts, numbers or booleans"),
        ("[[a]]\nb = 1", 1, "a list holds texts, numbers or booleans"),
        ("\"\" = 1", 1, "a key is not empty"),
        ("a = 99999999999999999999", 1, "the number is too large"),
        (&deep, 1, "deeper or longer than any key"),
        (&deeper, 1, "not TOML"),
        (&deepest, 1, "not TOML"),
    ] {
        let problem = Tree::from_toml(text, &TomlFile::Local("conf".into())).unwrap_err();
        let told = problem.to_string();
        assert!(told.starts_with(&format!("conf:{line}: error: ")), "{text:.60}: {told}");
        assert!(told.contains(why) && !told.contains("geheim"), "{text:.60}: {told}");
    }
}

#[test]
fn an_upper_tree_replaces_lists_deletes_with_none_and_names_what_it_hides() {
    let lower = etcd(&[
        ("/havip/virtual_router/1/vips", "10.0.0.1,10.0.0.2"),
        ("/havip/virtual_router/1/priority", "7"),
        ("/havip/virtual_router/1/interface", "eth0"),
        ("/havip/node/gw1/vrids", "1,2"),
    ]);
    let upper = toml(
        "virtual_router.1.vips = [\"10.0.0.9\"]\nvirtual_router.1.priority = \"none\"\n\
         virtual_router.1.version = 3\nnode.gw1.vrids = [1, 2]",
    );
    let (tree, shadows) = Tree::overlay(&upper, &lower);
    assert_eq!(value(&tree, "virtual_router/1/vips"), Some(&list(&["10.0.0.9"])));
    assert!(tree.set("virtual_router/1/priority").is_none());
    assert_eq!(value(&tree, "virtual_router/1/interface"), Some(&text("eth0")));
    let hidden: Vec<String> =
        shadows.iter().map(|s| format!("{} {} {}", s.path, s.used, s.hidden)).collect();
    assert_eq!(
        hidden,
        [
            "virtual_router/1/priority conf:2 /havip/virtual_router/1/priority (revision 2)",
            "virtual_router/1/vips conf:1 /havip/virtual_router/1/vips (revision 1)",
        ]
    );
}

#[test]
fn a_path_that_is_a_value_and_a_table_survives_the_snapshot() {
    let tree = etcd(&[
        ("/havip/virtual_router/1", "odd"),
        ("/havip/virtual_router/1/vips", "10.0.0.1"),
        ("/havip/format", "1"),
        ("/havip/a.b/\"c\"/ä", "line\nline\ttab \\ \u{7f}"),
    ]);
    let written = to_toml(&tree);
    let (read, problems) =
        Tree::from_toml(&written, &TomlFile::Snapshot("snapshot".into())).unwrap();
    assert_eq!(problems, []);
    let values = |tree: &Tree| -> Vec<(String, Value)> {
        tree.below("").map(|(path, entry)| (path.to_owned(), entry.value.clone())).collect()
    };
    assert_eq!(values(&read), values(&tree), "{written}");
}

#[test]
fn what_is_written_to_the_store_is_all_but_settings_and_what_nodes_say() {
    let tree = toml(
        "[havip]\nnode = \"gw1\"\n[policy]\ninterfaces = [\"eth0\"]\n[status]\ngw1 = \"x\"\n\
         [vRouterGateway]\n1 = \"x\"\n[virtual_routers.1]\nvips = [\"10.0.0.1\", \"10.0.0.2\"]\n\
         [node.gw1]\nvrids = [1]\n[node.gw2]\nvrids = []\n[later]\nkey = 7\n",
    );
    let expected = [
        ("/havip/later/key", "7"),
        ("/havip/node/gw1/vrids", "1"),
        ("/havip/node/gw2/vrids", "none"),
        ("/havip/virtual_router/1/vips", "10.0.0.1,10.0.0.2"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let (keys, left_out) = to_flat(&tree, "/havip/");
    assert_eq!(keys, expected);
    let settings = ["havip/node", "policy/interfaces", "status/gw1", "vRouterGateway/1"];
    assert_eq!(left_out, settings);
}

#[test]
fn every_effective_value_is_shown_with_its_place_and_secrets_are_not() {
    let (tree, _) = Tree::overlay(
        &toml("node.gw1.virtual_router.default.priority = 7"),
        &etcd(&[
            ("/havip/node/gw1/vrids", "1,../x"),
            ("/havip/virtual_router/1/vips", "10.0.0.1,\u{1b}[31m"),
            ("/havip/virtual_router/1/version", "2"),
            ("/havip/virtual_router/1/auth_pass", "geheim"),
        ]),
    );
    let shown = effective(&tree, &gw1());
    let line = |key| {
        let it = shown.iter().find(|shown| shown.key == key).unwrap();
        format!("{} {} [{}] {}", it.router, it.value, it.path, it.origin)
    };
    assert_eq!(line("priority"), "1 7 [node/gw1/virtual_router/default/priority] conf:1");
    assert_eq!(line("preempt"), "1 true [] built in");
    assert_eq!(
        line("vips"),
        "1 10.0.0.1,\\u001B[31m [virtual_router/1/vips] /havip/virtual_router/1/vips (revision 2)"
    );
    assert!(line("auth_pass").starts_with("1 (hidden) ") && !format!("{shown:?}").contains("gehe"));
    assert!(shown.iter().all(|shown| shown.router == "1"));
}

#[test]
fn a_check_of_everything_judges_every_node_and_every_leftover() {
    let tree = etcd(&[
        ("/havip/virtual_routers/default/interface", "eth0"),
        ("/havip/virtual_routers/100/vips", "10.0.0.3"),
        ("/havip/virtual_routers/101/vips", "10.0.0.999"),
        ("/havip/virtual_routers/102/vips", "10.0.0.4"),
        ("/havip/virtual_routers/999/vips", "10.0.0.5"),
        ("/havip/node/gw1/vrids", "100"),
        ("/havip/node/gw2/vrids", "100,101"),
        ("/havip/binding/10.0.0.3/vrid", "100"),
        ("/havip/binding/10.0.0.3/services", "a,b"),
        ("/havip/binding/10.0.0.8/vrid", "100"),
        ("/havip/binding/10.0.0.9/vrid", "7"),
        ("/havip/binding/x/vrid", "7"),
        ("/havip/binding/10.0.0.3/vip", "7"),
        ("/havip/vRouterGateway/100", "1.2.3.4,ff:ff:ff:ff:ff:ff"),
        ("/havip/status/gw1", "{}"),
        ("/havip/virtual_routes/1/vips", "10.0.0.5"),
    ]);
    let problems = check_all(&tree, &Policy::default(), &Facts::default(), false);
    for (severity, beginning) in [
        (Severity::Error, "/havip/virtual_routers/101/vips (revision 3): error: \"10.0.0.999\" is"),
        (Severity::Error, "error: virtual_router/101: its keys are not right"),
        (Severity::Note, "note: virtual_router/102: no node lists it"),
        (Severity::Note, "note: virtual_router/999: no node lists it"),
        (Severity::Note, "/havip/binding/10.0.0.8/vrid (revision 10): note: orphaned: virtual_ro"),
        (Severity::Note, "/havip/binding/10.0.0.9/vrid (revision 11): note: orphaned: virtual_ro"),
        (Severity::Warning, "/havip/binding/x/vrid (revision 12): warning: \"x\" is not an IP"),
        (Severity::Warning, "/havip/binding/10.0.0.3/vip (revision 13): warning: unknown key; did"),
        (Severity::Warning, "/havip/virtual_routes/1/vips (revision 16): warning: unknown key; d"),
    ] {
        assert_told(&problems, severity, beginning);
    }
    let rename = "warning: virtual_router/999: a router named by a number has its VRID";
    assert_told(&problems, Severity::Warning, rename);
    assert_eq!(problems.len(), 10, "{}", told(&problems));
}

#[test]
fn a_router_that_no_node_lists_is_checked_and_only_warned_of() {
    let text = "[node.gw1]\nvrids = [51]\n[node.gw1.virtual_router.53]\nvips = [\"10.0.0.300\"]\n\
                [virtual_router.default]\ninterface = \"eth0\"\n\
                [virtual_router.51]\nvips = [\"10.0.0.1\"]\n\
                [virtual_router.52]\nvips = [\"10.0.0\"]\n[virtual_router.53]\npriority = 7\n";
    let problems = check_all(&toml(text), &Policy::default(), &Facts::default(), false);
    for beginning in [
        "conf:4: warning: node/gw1/virtual_router/53/vips: \"10.0.0.300\" is not an IP address",
        "conf:10: warning: virtual_router/52/vips: \"10.0.0\" is not an IP address",
    ] {
        assert_told(&problems, Severity::Warning, beginning);
    }
    assert!(!problems.iter().any(Problem::is_error), "{}", told(&problems));
}

#[test]
fn a_vip_of_two_routers_on_different_nodes_is_noted_and_one_router_on_many_nodes_is_not() {
    let tree = etcd(&[
        ("/havip/virtual_routers/default/interface", "eth0"),
        ("/havip/virtual_routers/100/vips", "10.0.0.3,10.0.0.4"),
        ("/havip/virtual_routers/101/vips", "10.0.0.5,10.0.0.3"),
        ("/havip/virtual_routers/102/vips", "10.0.0.4"),
        ("/havip/virtual_routers/102/interface", "eth1"),
        ("/havip/node/gw1/vrids", "100"),
        ("/havip/node/gw2/vrids", "100"),
        ("/havip/node/gw3/vrids", "101,102"),
    ]);
    let problems = check_all(&tree, &Policy::default(), &Facts::default(), false);
    let note = "note: virtual_router/101/vips: 10.0.0.3 on eth0: the same VIP as router 100's";
    assert_told(&problems, Severity::Note, note);
    assert_eq!(problems.len(), 1, "{}", told(&problems));
}
