//! Results as Markdown: on the screen as they come, and in a file below `target/bench`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use super::other;
use crate::lab::peer;

/// A table that grows by rows.
pub(crate) struct Table(File);

/// Where results go.
pub(crate) fn folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder).expect("target can be written to");
    folder
}

/// The name of what comes of a benchmark beside the keepalived that it runs with.
pub(crate) fn beside(name: &str) -> String {
    match other().as_str() {
        "keepalived" => name.to_owned(),
        peer => format!("{name}-{peer}"),
    }
}

impl Table {
    /// Begins `target/bench/NAME.md` anew.
    pub(crate) fn new(name: &str, columns: &[&str]) -> Self {
        Self::headed(name, &machine(), columns)
    }

    /// The same beside keepalived: `NAME-PEER.md` where that is not the usual one.
    pub(crate) fn beside_keepalived(name: &str, columns: &[&str]) -> Self {
        let version = peer::version(&other());
        Self::headed(&beside(name), &format!("{}, keepalived {version}", machine()), columns)
    }

    fn headed(name: &str, head: &str, columns: &[&str]) -> Self {
        let file = File::create(folder().join(format!("{name}.md"))).expect("it can be made");
        let mut table = Self(file);
        table.line(head);
        table.line("");
        table.row(columns);
        table.row(&vec!["---"; columns.len()]);
        table
    }

    pub(crate) fn row(&mut self, cells: &[impl AsRef<str>]) {
        let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
        self.line(&format!("| {} |", cells.join(" | ")));
    }

    fn line(&mut self, text: &str) {
        println!("{text}");
        writeln!(self.0, "{text}").expect("there is room");
    }
}

/// What this ran on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model =
        model.map_or("a processor without a name", |text| text.trim_matches([' ', '\t', ':']));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {count} × {model}", kernel.trim())
}
