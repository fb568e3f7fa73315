//! Any keys and values as a store: lines of `key=value`, before and after an empty line as two
//! states of the store, one following the other.

use havip::config::{
    Config, Facts, Input, NodeName, Policy, Tree, Vanished, build, check_all, diff, effective,
    to_flat, to_toml,
};

fn tree(text: &[u8]) -> Tree {
    let keys: Vec<(Vec<u8>, &[u8])> = text
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let at = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
            let (key, value) = line.split_at(at);
            ([b"/havip/", key].concat(), value.get(1..).unwrap_or_default())
        })
        .collect();
    Tree::from_flat("/havip/", keys.iter().zip(1..).map(|((k, v), rev)| (&k[..], *v, rev))).0
}

fn built(tree: &Tree, previous: Option<&Config>) -> Config {
    let node = NodeName::new("gw1").unwrap();
    let (policy, facts) = (Policy::default(), Facts::default());
    let _ = check_all(tree, &policy, &facts, false);
    let _ = (effective(tree, &node), to_toml(tree), to_flat(tree, "/havip/"));
    build(&Input {
        tree,
        node: &node,
        previous,
        policy: &policy,
        facts: &facts,
        vanished: Vanished::Hold,
        listed_since: None,
    })
    .config
}

/// Takes any bytes.
pub(crate) fn run(data: &[u8]) {
    let at = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (first, second) = data.split_at(at);
    let before = built(&tree(first), None);
    let store = tree(second.get(2..).unwrap_or_default());
    let after = built(&store, Some(&before));
    assert_eq!(built(&store, Some(&after)), after, "nothing changes without a change");
    // What the store does not name any more was a mistake, not an order.
    if store.is_empty() {
        assert!(diff(&before, &after).is_empty());
    }
}
