//! A tree as TOML text, and as flat keys.

use std::fmt::Write as _;

use super::tree::{Tree, Value};

/// Writes a tree as TOML, sorted, secrets and all: the text belongs into a file that only its
/// owner can read. What [`Tree::from_toml`] reads from it is the same tree.
#[must_use]
pub fn to_toml(tree: &Tree) -> String {
    let mut text = String::new();
    let mut open = None;
    for (path, entry) in sorted(tree) {
        let (table, key) = path.rsplit_once('/').unwrap_or(("", path));
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

/// Writes a tree as flat keys and values, as etcd has them.
#[must_use]
pub fn to_flat(tree: &Tree, prefix: &str) -> Vec<(String, String)> {
    tree.below("")
        .map(|(path, entry)| {
            let value = match &entry.value {
                Value::None => "none".to_owned(),
                Value::Text(value) => value.clone(),
                Value::List(items) => items.join(","),
            };
            (format!("{prefix}{path}"), value)
        })
        .collect()
}

/// Entries by table: keys of a table stand together, also when a deeper table sorts in between.
fn sorted(tree: &Tree) -> Vec<(&str, &super::tree::Entry)> {
    let mut entries: Vec<_> = tree.below("").collect();
    entries.sort_by_key(|(path, _)| path.rsplit_once('/').unwrap_or(("", path)));
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
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
