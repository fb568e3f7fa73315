//! The rules, named as sentences; what they share.

mod promises;
mod properties;
mod rules;
mod sources;

use super::{
    Config, Facts, Input, NodeName, Outcome, Policy, Problem, Router, RouterName, Severity,
    TomlFile, Tree, Vanished, build,
};

/// A local file named `conf`.
fn toml(text: &str) -> Tree {
    let (tree, problems) = Tree::from_toml(text, &TomlFile::Local("conf".into())).unwrap();
    assert_eq!(problems, []);
    tree
}

/// A store; each key's revision is its position, counted from 1.
fn etcd(keys: &[(&str, &str)]) -> Tree {
    let (tree, problems) = Tree::from_flat("/havip/", flat(keys));
    assert_eq!(problems, []);
    tree
}

fn flat<'a>(keys: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a [u8], &'a [u8], i64)> {
    keys.iter().zip(1..).map(|((key, value), rev)| (key.as_bytes(), value.as_bytes(), rev))
}

fn gw1() -> NodeName {
    NodeName::new("gw1").unwrap()
}

fn name(name: &str) -> RouterName {
    RouterName::new(name).unwrap()
}

fn on(tree: &Tree, previous: Option<&Config>) -> Outcome {
    with(tree, previous, &Policy::default(), &Facts::default())
}

fn with(tree: &Tree, previous: Option<&Config>, policy: &Policy, facts: &Facts) -> Outcome {
    build(&Input {
        tree,
        node: &gw1(),
        previous,
        policy,
        facts,
        vanished: Vanished::Hold,
        listed_since: None,
    })
}

/// The configuration of a tree that is right.
fn right(tree: &Tree) -> Config {
    let outcome = on(tree, None);
    assert_eq!(told(&outcome.problems), "");
    outcome.config
}

fn router<'a>(config: &'a Config, of: &str) -> &'a Router {
    &config.routers[&name(of)]
}

fn names(config: &Config) -> Vec<&str> {
    config.routers.keys().map(RouterName::as_str).collect()
}

fn vips(router: &Router) -> Vec<String> {
    router.vips.iter().map(ToString::to_string).collect()
}

fn told(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// That one problem is told in exactly these words at its beginning, and of this severity.
fn assert_told(problems: &[Problem], severity: Severity, beginning: &str) {
    assert!(
        problems
            .iter()
            .any(|problem| problem.severity == severity
                && problem.to_string().starts_with(beginning)),
        "no {severity} begins with {beginning:?} in:\n{}",
        told(problems)
    );
}

/// That router 100 with these lines in its table is refused with this text.
fn assert_refused(lines: &str, beginning: &str) {
    let tree = router_100(lines);
    let outcome = on(&tree, None);
    assert_told(&outcome.problems, Severity::Error, beginning);
    assert!(names(&outcome.config).is_empty(), "{lines}");
    let told = &outcome.problems;
    assert!(told.iter().all(|p| p.router == Some(name("100"))), "{told:?}");
}

/// Line 1 to 4 are a node's and the table's; `lines` begin on line 5.
fn router_100(lines: &str) -> Tree {
    toml(&format!("[node.gw1]\nvrids = [100]\n\n[virtual_router.100]\n{lines}"))
}
