//! A tree as TOML text, and as flat keys.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::key::OUTPUTS;
use super::settings::TABLES;
use super::shown::escape;
use super::tree::{Entry, Tree, Value};

/// Writes a tree as TOML, sorted, secrets and all: the text belongs into a file that only its
/// owner can read. What [`Tree::from_toml`] reads from it is the same tree.
#[must_use]
pub fn to_toml(tree: &Tree) -> String {
    let mut text = String::new();
    let mut open = None;
    for (table, key, entry) in sorted(tree) {
        if open != Some(table) {
            if !text.is_empty() {
                text.push('\n');
            }
            if !table.is_empty() {
                let segments: Vec<String> = table.split('/').map(bare_or_quoted).collect();
                let _ = writeln!(text, "[{}]", segments.join("."));
            }
            open = Some(table);
        }
        let value = match &entry.value {
            Value::None => quoted("none"),
            Value::Text(value) => quoted(value),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
                format!("[{}]", items.join(", "))
            }
        };
        let _ = writeln!(text, "{} = {value}", bare_or_quoted(key));
    }
    text
}

/// Writes a tree as flat keys and values, as etcd has them, in the README's spelling; what nobody
/// knows as well. Settings of the daemon, and what nodes write themselves, do not belong there:
/// their paths are given beside it.
#[must_use]
pub fn to_flat(tree: &Tree, prefix: &str) -> (Vec<(String, String)>, Vec<String>) {
    let mut keys = Vec::new();
    let mut left_out = Vec::new();
    for (path, entry) in tree.below("") {
        let branch = path.split('/').next().unwrap_or_default();
        if TABLES.contains(&branch) || OUTPUTS.contains(&branch) {
            left_out.push(path.to_owned());
            continue;
        }
        let value = match &entry.value {
            Value::Text(value) => value.clone(),
            // An empty text is no word that releases a router.
            Value::List(items) if !items.is_empty() => items.join(","),
            Value::None | Value::List(_) => "none".to_owned(),
        };
        keys.push((format!("{prefix}{path}"), value));
    }
    (keys, left_out)
}

/// Table, key and entry, so that keys of a table stand together also when a deeper table sorts
/// in between. Where a path is both a value and a table, the value is the table's key `""`.
fn sorted(tree: &Tree) -> Vec<(&str, &str, &Entry)> {
    let all: Vec<_> = tree.below("").collect();
    let tables: BTreeSet<&str> = all
        .iter()
        .flat_map(|(path, _)| path.match_indices('/').filter_map(|(at, _)| path.get(..at)))
        .collect();
    let mut entries: Vec<_> = all
        .into_iter()
        .map(|(path, entry)| {
            if tables.contains(path) {
                return (path, "", entry);
            }
            let (table, key) = path.rsplit_once('/').unwrap_or(("", path));
            (table, key, entry)
        })
        .collect();
    entries.sort_by_key(|(table, key, _)| (*table, *key));
    entries
}

fn bare_or_quoted(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { quoted(key) }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            c => escape(c, &mut out),
        }
    }
    out.push('"');
    out
}
