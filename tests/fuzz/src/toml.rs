//! Any text as the local file and as a snapshot: what is read is written and read back the same,
//! and neither checking nor building panics.

use havip::config::{
    Facts, Input, NodeName, Policy, TomlFile, Tree, Vanished, build, check_all, effective,
    settings, to_toml,
};

fn read(text: &str, file: &TomlFile) -> Option<Tree> {
    Tree::from_toml(text, file).ok().map(|(tree, _)| tree)
}

fn paths(tree: &Tree) -> Vec<(String, String)> {
    tree.below("").map(|(path, entry)| (path.to_owned(), format!("{:?}", entry.value))).collect()
}

/// Takes any bytes.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for file in [
        TomlFile::Local("conf".into()),
        TomlFile::Snapshot("snapshot".into()),
        TomlFile::Import("import".into()),
    ] {
        let Some(tree) = read(text, &file) else { continue };
        let written = to_toml(&tree);
        let again = read(&written, &file).expect("what was written is readable");
        assert_eq!(paths(&again), paths(&tree), "{written}");
        let (settings, _) = settings(&tree);
        let node = NodeName::new("gw1").unwrap();
        let facts = Facts::default();
        for policy in [&Policy::default(), &settings.policy] {
            let first = Input {
                tree: &tree,
                node: &node,
                previous: None,
                policy,
                facts: &facts,
                vanished: Vanished::Hold,
                listed_since: None,
            };
            let built = build(&first).config;
            let input = Input { previous: Some(&built), ..first };
            assert_eq!(build(&input).config, built, "nothing changes without a change");
            let _ = check_all(&tree, policy, &facts, true);
        }
        let _ = effective(&tree, &node);
    }
}
