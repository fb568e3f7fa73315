//! The raw tree: path → value with its origin, from flat keys or from TOML, and how one tree is
//! laid over another.
//!
//! Paths are written without the prefix and with the README's spelling: `virtual_router/100/vips`.
//! The deployed code's `virtual_routers/` is read as the same place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Report, Severity};
use super::shown;

/// Keys of one source: more than ten thousand gateways need.
const ENTRIES_MAX: usize = 200_000;
/// Bytes of a key, and of a value, from etcd and TOML alike: etcd by itself takes requests of at
/// most 1.5 MiB.
const KEY_MAX: usize = 1024;
const VALUE_MAX: usize = 1024 * 1024;
/// Segments of a path. The longest known ones have five; the TOML parser bounds its own depth.
const SEGMENTS_MAX: usize = 16;
/// Bytes of a TOML text.
const TOML_MAX: usize = 64 * 1024 * 1024;

/// A value as it stands in its source.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// `none`: explicitly not set.
    None,
    /// A single value; in TOML also a number or a boolean.
    Text(String),
    /// A TOML list.
    List(Vec<String>),
}

impl Value {
    /// Its items: a list's, or those of a text with commas.
    pub fn items(&self) -> impl Iterator<Item = &str> {
        let (text, list) = match self {
            Self::None => (None, None),
            Self::Text(text) => (Some(text.split(',')), None),
            Self::List(list) => (None, Some(list.iter().map(String::as_str))),
        };
        let items = text.into_iter().flatten().chain(list.into_iter().flatten());
        items.map(str::trim).filter(|item| !item.is_empty())
    }

    /// Its length as one text, as etcd has it.
    fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Text(text) => text.len(),
            Self::List(items) => {
                items.iter().map(String::len).sum::<usize>() + items.len().saturating_sub(1)
            }
        }
    }

    /// Whether both mean the same: a list and the text with commas that stands for it do.
    fn means(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(_), Self::List(_)) | (Self::List(_), Self::Text(_)) => {
                self.items().eq(other.items())
            }
            (Self::None | Self::Text(_), _) | (Self::List(_), _) => self == other,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be a password; who it belongs to decides who may see it.
        f.write_str(match self {
            Self::None => "None",
            Self::Text(_) => "Text(..)",
            Self::List(_) => "List(..)",
        })
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Not set anywhere: built in, or by a profile.
    BuiltIn(&'static str),
    /// A key in etcd.
    Etcd {
        /// The whole key.
        key: Arc<str>,
        /// Revision of its last change.
        mod_revision: i64,
    },
    /// The local file.
    Local {
        /// Its path.
        file: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
    /// The snapshot of what etcd had.
    Snapshot {
        /// Its path.
        file: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
    /// A file whose content is to be put into etcd.
    Import {
        /// Its path.
        file: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
}

impl Origin {
    /// Whether it is the store's word, live, from the snapshot or about to be, and so bound by
    /// `[policy]`.
    #[must_use]
    pub const fn is_store(&self) -> bool {
        match self {
            Self::Etcd { .. } | Self::Snapshot { .. } | Self::Import { .. } => true,
            Self::BuiltIn(_) | Self::Local { .. } => false,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn(what) => f.write_str(what),
            Self::Etcd { key, mod_revision } => write!(f, "{key} (revision {mod_revision})"),
            Self::Local { file, line }
            | Self::Snapshot { file, line }
            | Self::Import { file, line } => {
                write!(f, "{file}:{line}")
            }
        }
    }
}

/// A value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// Its origin.
    pub origin: Origin,
}

/// Which file a TOML text is.
#[derive(Clone, Debug)]
pub enum TomlFile {
    /// The local file.
    Local(Arc<str>),
    /// The snapshot.
    Snapshot(Arc<str>),
    /// What is to be put into etcd.
    Import(Arc<str>),
}

impl TomlFile {
    fn at(&self, line: usize) -> Origin {
        match self {
            Self::Local(file) => Origin::Local { file: Arc::clone(file), line },
            Self::Snapshot(file) => Origin::Snapshot { file: Arc::clone(file), line },
            Self::Import(file) => Origin::Import { file: Arc::clone(file), line },
        }
    }
}

/// Everything of one source, or of several laid over each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// From flat keys as etcd has them. White space around values is cut, as operators' scripts
    /// leave newlines there. What cannot be a key of havip's is left out and reported.
    pub fn from_flat<'a>(
        prefix: &str,
        keys: impl IntoIterator<Item = (&'a [u8], &'a [u8], i64)>,
    ) -> (Self, Vec<Problem>) {
        let mut tree = Self::default();
        let mut problems = Report::default();
        let mut plural = Vec::new();
        for (key, value, mod_revision) in keys {
            if tree.entries.len() + plural.len() >= ENTRIES_MAX {
                let why =
                    format!("more than {ENTRIES_MAX} keys: this one and later ones are not read");
                problems.push(Problem::at(Severity::Error, "", &etcd(key, mod_revision), why));
                break;
            }
            match flat(prefix, key, value) {
                Ok(None) => {}
                Ok(Some((path, value))) => {
                    let entry = Entry { value, origin: etcd(key, mod_revision) };
                    let (path, was_plural) = canonical(path);
                    if was_plural {
                        plural.push((path, entry));
                    } else {
                        tree.entries.insert(path, entry);
                    }
                }
                Err(why) => {
                    let why = format!("{why}: not read; delete it, or write it anew");
                    problems.push(Problem::at(
                        Severity::Warning,
                        "",
                        &etcd(key, mod_revision),
                        why,
                    ));
                }
            }
        }
        for (path, entry) in plural {
            tree.insert_plural(path, entry, &mut problems);
        }
        (tree, problems.into_vec())
    }

    /// From TOML: the same tree as tables. Numbers, booleans and lists are native there.
    ///
    /// # Errors
    /// What is wrong with the text, with its line, never with its content: it may hold secrets.
    pub fn from_toml(text: &str, file: &TomlFile) -> Result<(Self, Vec<Problem>), Problem> {
        let lines = Lines::of(text);
        let wrong =
            |line, why: &str| Problem::at(Severity::Error, "", &file.at(line), why.to_owned());
        if text.len() > TOML_MAX {
            return Err(wrong(1, "larger than 64 MiB"));
        }
        // The parser bounds its own recursion.
        let root = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| lines.line(span.start));
            wrong(line, &format!("not TOML: {}", error.message()))
        })?;
        let mut found = Vec::new();
        collect(root.get_ref(), "", file, &lines, &mut found)?;
        let mut tree = Self::default();
        let mut problems = Report::default();
        let mut plural = Vec::new();
        for (path, entry) in found {
            let (path, was_plural) = canonical(&path);
            if was_plural {
                plural.push((path, entry));
            } else {
                tree.entries.insert(path, entry);
            }
        }
        for (path, entry) in plural {
            tree.insert_plural(path, entry, &mut problems);
        }
        Ok((tree, problems.into_vec()))
    }

    fn insert_plural(&mut self, path: String, entry: Entry, problems: &mut Report) {
        match self.entries.get(&path) {
            None => _ = self.entries.insert(path, entry),
            Some(singular) if singular.value == entry.value => {}
            Some(singular) => {
                let message = format!(
                    "differs from {}, which is used; delete one of the two",
                    singular.origin
                );
                problems.push(Problem::at(Severity::Warning, &path, &entry.origin, message));
            }
        }
    }

    /// Lays `upper` over `lower`, path by path; a list replaces the whole list, `none` deletes.
    /// Also gives the paths at which a different value of `lower` is hidden.
    #[must_use]
    pub fn overlay(upper: &Self, lower: &Self) -> (Self, Vec<Shadow>) {
        let mut entries = lower.entries.clone();
        let mut shadows = Vec::new();
        for (path, entry) in &upper.entries {
            if let Some(hidden) = entries.insert(path.clone(), entry.clone())
                && !hidden.value.means(&entry.value)
            {
                shadows.push(Shadow {
                    path: path.clone(),
                    used: entry.origin.clone(),
                    hidden: hidden.origin,
                });
            }
        }
        (Self { entries }, shadows)
    }

    /// The entry at `path`, `none` included.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// The entry at `path` unless it is `none`.
    #[must_use]
    pub fn set(&self, path: &str) -> Option<&Entry> {
        self.get(path).filter(|entry| entry.value != Value::None)
    }

    /// All entries below `prefix`, which ends in a slash or is empty.
    pub fn below<'a>(&'a self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        self.entries
            .range(prefix.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(prefix))
            .map(|(path, entry)| (path.as_str(), entry))
    }

    /// Names of the children of `prefix`, which ends in a slash: `virtual_router/` → 100, 101.
    #[must_use]
    pub fn children(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .below(prefix)
            .filter_map(|(path, _)| path.strip_prefix(prefix)?.split('/').next())
            .map(str::to_owned)
            .collect();
        names.dedup();
        names
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts an entry; for sources that are neither flat keys nor TOML.
    pub fn insert(&mut self, path: &str, value: Value, origin: Origin) {
        self.entries.insert(canonical(path).0, Entry { value, origin });
    }

    /// Takes out one entry.
    pub fn remove(&mut self, path: &str) {
        self.entries.remove(path);
    }

    /// Takes out everything below `prefix`.
    pub fn remove_below(&mut self, prefix: &str) {
        self.entries.retain(|path, _| !path.starts_with(prefix));
    }
}

/// A value of one source that hides a different one of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Where.
    pub path: String,
    /// Whose value is used.
    pub used: Origin,
    /// Whose is not.
    pub hidden: Origin,
}

/// Path and value of a flat key; `None` if the key is outside `prefix`.
fn flat<'a>(
    prefix: &str,
    key: &'a [u8],
    value: &'a [u8],
) -> Result<Option<(&'a str, Value)>, String> {
    if key.len() > KEY_MAX {
        return Err(format!("a key of {} bytes; havip reads keys of at most {KEY_MAX}", key.len()));
    }
    if value.len() > VALUE_MAX {
        return Err(too_long(value.len()));
    }
    let Ok(key) = std::str::from_utf8(key) else { return Err("the key is not UTF-8".into()) };
    let Ok(value) = std::str::from_utf8(value) else {
        return Err("the value is not UTF-8".into());
    };
    let Some(path) = key.strip_prefix(prefix) else { return Ok(None) };
    if path.split('/').any(str::is_empty) {
        return Err("an empty segment in the key".into());
    }
    if path.chars().any(char::is_control) {
        return Err("a control character in the key".into());
    }
    if path.split('/').count() > SEGMENTS_MAX {
        return Err("more segments than any key that havip knows".into());
    }
    Ok(Some((path, text(value.trim()))))
}

/// A key of etcd's as it may be shown: of bounded length, with escapes.
fn etcd(key: &[u8], mod_revision: i64) -> Origin {
    let text = String::from_utf8_lossy(key.get(..KEY_MAX).unwrap_or(key));
    let key = shown::whole(&text).into();
    Origin::Etcd { key, mod_revision }
}

fn too_long(bytes: usize) -> String {
    format!("a value of {bytes} bytes; havip reads values of at most {VALUE_MAX} (1 MiB)")
}

/// The text of a TOML file.
///
/// # Errors
/// Where it is not UTF-8.
pub fn utf8<'a>(bytes: &'a [u8], file: &TomlFile) -> Result<&'a str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let right = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + right.iter().filter(|byte| **byte == b'\n').count();
        let message = "not UTF-8; save the file as UTF-8, or delete the strange characters here";
        Problem::at(Severity::Error, "", &file.at(line), message.to_owned())
    })
}

fn text(value: &str) -> Value {
    if value == "none" { Value::None } else { Value::Text(value.to_owned()) }
}

/// The path in the README's spelling, and whether it was written in the other one.
fn canonical(path: &str) -> (String, bool) {
    if let Some(rest) = path.strip_prefix("virtual_routers/") {
        return (format!("virtual_router/{rest}"), true);
    }
    if let Some(rest) = path.strip_prefix("node/")
        && let Some((node, rest)) = rest.split_once('/')
        && let Some(rest) = rest.strip_prefix("virtual_routers/")
    {
        return (format!("node/{node}/virtual_router/{rest}"), true);
    }
    (path.to_owned(), false)
}

fn collect(
    table: &DeTable<'_>,
    prefix: &str,
    file: &TomlFile,
    lines: &Lines,
    found: &mut Vec<(String, Entry)>,
) -> Result<(), Problem> {
    for (name, value) in table {
        let line = lines.line(name.span().start);
        let name = name.get_ref();
        let wrong = |why: String| {
            Problem::at(Severity::Error, &format!("{prefix}{name}"), &file.at(line), why)
        };
        if name.contains('/') || name.chars().any(char::is_control) {
            return Err(wrong("a key has no slash and no control character; write tables".into()));
        }
        // `""` names the table's own value: flat keys may have both `a` and `a/b`.
        let path = match &**name {
            "" => prefix.strip_suffix('/').unwrap_or_default().to_owned(),
            name => format!("{prefix}{name}"),
        };
        if path.is_empty() {
            return Err(wrong("a key is not empty".into()));
        }
        if path.len() > KEY_MAX || path.split('/').count() > SEGMENTS_MAX {
            return Err(wrong("deeper or longer than any key that havip knows".into()));
        }
        let value = match value.get_ref() {
            DeValue::Table(_) if name.is_empty() => return Err(wrong("a key is not empty".into())),
            DeValue::Table(inner) => {
                collect(inner, &format!("{path}/"), file, lines, found)?;
                continue;
            }
            DeValue::Array(items) => {
                let items: Option<Vec<String>> = items
                    .iter()
                    .map(|item| Some(scalar(item.get_ref())?.trim().to_owned()))
                    .collect();
                let items =
                    items.ok_or_else(|| wrong("a list holds texts, numbers or booleans".into()))?;
                // The original's API takes ["none"] for a list that is not set.
                if items.iter().eq(["none"]) { Value::None } else { Value::List(items) }
            }
            other => match scalar(other) {
                Some(value) => text(value.trim()),
                None if other.is_integer() => return Err(wrong("the number is too large".into())),
                None => return Err(wrong("a date is no value of havip's".into())),
            },
        };
        if found.len() >= ENTRIES_MAX {
            return Err(wrong(format!("more than {ENTRIES_MAX} keys")));
        }
        let bytes = value.bytes();
        if bytes > VALUE_MAX {
            return Err(wrong(too_long(bytes)));
        }
        found.push((path, Entry { value, origin: file.at(line) }));
    }
    Ok(())
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Where each line of a text begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(ends).collect())
    }

    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset).max(1)
    }
}
