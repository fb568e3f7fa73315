use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;
use crate::config::snapshot::MAGIC;

/// A directory of a test's own; goes with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "havip-snapshot-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn node() -> NodeName {
    NodeName::new("gw1").unwrap()
}

fn header(revision: i64) -> Header {
    Header {
        revision,
        cluster_id: 0xcdf8_181e_3277_5b5d,
        time: 1_790_000_000,
        node: node(),
        held: None,
    }
}

fn entries(list: &[(&str, &str)]) -> Vec<Entry> {
    list.iter()
        .map(|(key, value)| Entry {
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            mod_revision: 7,
        })
        .collect()
}

fn seed() -> String {
    body(&kept(
        "/havip/",
        &entries(&[
            ("/havip/node/gw1/vrids", "100"),
            ("/havip/virtual_routers/100/vips", "10.0.0.3,10.0.0.4\n"),
            ("/havip/virtual_router/100/auth_pass", "se\"cr\\et"),
            ("/havip/virtual_router/100/interface", "none"),
            ("/havip/vRouterGateway/100", "192.0.2.1,ff:ff:ff:ff:ff:ff"),
        ]),
    ))
}

#[test]
fn what_is_written_is_read_again() {
    let dir = Dir::new();
    write(&dir.0, &header(42), &seed()).unwrap();
    let (snapshot, refused) = load(&dir.0, &node());
    let snapshot = snapshot.unwrap();
    assert!(refused.is_empty() && snapshot.problems.is_empty());
    assert_eq!(snapshot.header, header(42));
    assert_eq!(body(&snapshot.tree), seed());
    let vips = snapshot.tree.get("virtual_router/100/vips").unwrap();
    assert_eq!(vips.value.items().collect::<Vec<_>>(), ["10.0.0.3", "10.0.0.4"]);
    assert!(matches!(&vips.origin, crate::config::Origin::Snapshot { line, .. } if *line > 8));
    // What nodes write changes with each failover, and says nothing about what is wanted.
    assert!(snapshot.tree.get("vRouterGateway/100").is_none());
    assert!(snapshot.tree.get("snapshot/format").is_none());
}

#[test]
fn only_its_owner_can_read_it() {
    let dir = Dir::new();
    for revision in 1..3 {
        write(&dir.0, &header(revision), &seed()).unwrap();
    }
    for name in [FILE, FILE_OLD] {
        let mode = fs::metadata(dir.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(!dir.file(FILE_NEW).exists());
}

#[test]
fn a_torn_snapshot_is_refused_by_name_and_the_older_one_used() {
    let dir = Dir::new();
    write(&dir.0, &header(1), &seed()).unwrap();
    write(&dir.0, &header(2), &seed()).unwrap();
    let whole = dir.text(FILE);
    for length in 0..whole.len() {
        fs::write(dir.file(FILE), &whole[..length]).unwrap();
        let (snapshot, refused) = load(&dir.0, &node());
        assert_eq!(snapshot.unwrap().header.revision, 1, "{length} bytes");
        let said = refused[0].to_string();
        assert!(refused.len() == 1 && said.contains(FILE) && !said.contains("cr"), "{said}");
    }
}

#[test]
fn a_torn_snapshot_does_not_push_out_the_older_one() {
    let dir = Dir::new();
    write(&dir.0, &header(1), &seed()).unwrap();
    write(&dir.0, &header(2), &seed()).unwrap();
    fs::write(dir.file(FILE), "[snapsh").unwrap();
    write(&dir.0, &header(3), &seed()).unwrap();
    fs::write(dir.file(FILE), "").unwrap();
    assert_eq!(load(&dir.0, &node()).0.unwrap().header.revision, 1);
}

#[test]
fn a_crash_between_the_two_renames_loses_nothing() {
    let dir = Dir::new();
    write(&dir.0, &header(1), &seed()).unwrap();
    fs::rename(dir.file(FILE), dir.file(FILE_OLD)).unwrap();
    fs::write(dir.file(FILE_NEW), "half").unwrap();
    assert_eq!(load(&dir.0, &node()).0.unwrap().header.revision, 1);
    write(&dir.0, &header(2), &seed()).unwrap();
    assert_eq!(load(&dir.0, &node()).0.unwrap().header.revision, 2);
}

#[test]
fn another_nodes_snapshot_and_another_format_are_refused() {
    let path = Path::new("/s/snapshot.toml");
    let text = encode(&header(1), &seed());
    let other = NodeName::new("gw2").unwrap();
    let error = decode(&text, path, &other).unwrap_err().to_string();
    assert!(error.contains("\"gw1\"") && error.contains("\"gw2\""), "{error}");

    let (_, rest) = text.split_once("\"\n").unwrap();
    let rest = rest.replace("format = 1", "format = 2");
    let newer = format!("{MAGIC}{:016x}\"\n{rest}", fnv1a64(rest.as_bytes()));
    let error = decode(&newer, path, &node()).unwrap_err().to_string();
    assert!(error.contains("format"), "{error}");

    let error = decode("vips = 1\n", path, &node()).unwrap_err().to_string();
    assert!(error.starts_with("snapshot /s/snapshot.toml: not used: not a snapshot"), "{error}");
}

#[test]
fn keys_that_toml_cannot_hold_do_not_spoil_the_others() {
    let deep = format!("/havip/{}", vec!["x"; 400].join("/"));
    let tree = kept(
        "/havip/",
        &entries(&[
            ("/havip/node/gw1", "also a table"),
            ("/havip/node/gw1/vrids", "100"),
            ("/havip/snapshot", "x"),
            ("/havip/hash", "x"),
            ("/havip/snapshot/node", "gw2"),
            (&deep, "x"),
        ]),
    );
    let text = encode(&header(1), &body(&tree));
    let snapshot = decode(&text, Path::new("s"), &node()).unwrap();
    let paths: Vec<_> = snapshot.tree.below("").map(|(path, _)| path).collect();
    assert_eq!(paths, ["node/gw1/vrids"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = Dir::new();
    fs::write(dir.file("file"), "").unwrap();
    let error = write(&dir.file("file"), &header(1), &seed()).unwrap_err();
    assert!(error.to_string().contains("/file: making the directory: "), "{error}");
    let (snapshot, refused) = load(&dir.file("absent"), &node());
    assert!(snapshot.is_none() && refused.is_empty());
}

#[test]
fn it_is_written_when_it_changed_and_not_more_often_than_the_interval() {
    let at = |s| Instant::ZERO + Duration::from_secs(s);
    let now = header(7);
    let mut pace = Pace::new(Duration::from_secs(60));
    assert_eq!(pace.due(at(1), &now, "a"), Due::Now);
    pace.found(&now, "a");
    assert_eq!(pace.due(at(1), &now, "a"), Due::Never);
    assert_eq!(pace.due(at(1), &Header { held: Some(0), ..now.clone() }, "a"), Due::Now);
    assert_eq!(pace.due(at(1), &now, "b"), Due::Now);
    pace.tried(at(1), &now, "b", true);
    assert_eq!(pace.due(at(2), &now, "b"), Due::Never);
    assert_eq!(pace.due(at(2), &now, "c"), Due::At(at(61)));
    assert_eq!(pace.due(at(70), &header(8), "b"), Due::Never);
    assert_eq!(pace.due(at(70), &header(6), "b"), Due::Now);
    assert_eq!(pace.due(at(70), &Header { cluster_id: 9, ..now.clone() }, "b"), Due::Now);
    // Back to what is on disk before its time came.
    assert_eq!(pace.due(at(61), &now, "b"), Due::Never);
    assert_eq!(pace.due(at(61), &now, "c"), Due::Now);
    pace.tried(at(61), &now, "c", false);
    assert_eq!(pace.due(at(120), &now, "c"), Due::At(at(121)));
    assert_eq!(pace.due(at(121), &now, "c"), Due::Now);
}

#[test]
fn the_hash_is_fnv_1a() {
    assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
}

proptest! {
    #[test]
    fn whatever_the_store_holds_can_be_written_and_read(
        keys in prop::collection::vec(("[ab/\"\\\\.\u{e9} ]{0,12}", ".{0,8}"), 0..12)
    ) {
        let list: Vec<Entry> = keys
            .iter()
            .map(|(path, value)| Entry {
                key: format!("/havip/{path}").into_bytes(),
                value: value.clone().into_bytes(),
                mod_revision: 1,
            })
            .collect();
        let tree = kept("/havip/", &list);
        let text = encode(&header(1), &body(&tree));
        let snapshot = decode(&text, Path::new("s"), &node()).unwrap();
        prop_assert_eq!(body(&snapshot.tree), body(&tree));
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", at in 0_usize..400, with in any::<u8>()) {
        let _ = decode(&text, Path::new("s"), &node());
        let mut bytes = encode(&header(1), &seed()).into_bytes();
        let index = at % bytes.len();
        if bytes[index] != with {
            bytes[index] = with;
            if let Ok(text) = String::from_utf8(bytes) {
                // The hash's own line may differ in letter case alone.
                let read = decode(&text, Path::new("s"), &node());
                prop_assert!(read.is_err() || index < MAGIC.len() + 16);
            }
        }
    }
}
