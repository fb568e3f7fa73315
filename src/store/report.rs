//! What a node tells the store of itself, at `status/NODE`: schema 1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the JSON's shape. Fields may be added; a change of what is there gets a new number.
pub const SCHEMA: u32 = 1;

/// A node that lives, and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its name.
    pub node: String,
    /// Of its daemon.
    pub version: &'static str,
    /// When its daemon started, in seconds since 1970 by its own clock.
    pub started: u64,
    /// MAC addresses by which the box is known from another one of the same name.
    pub macs: Vec<String>,
    /// As in its gateway keys.
    pub node_ip: Option<String>,
    /// Where its configuration comes from: `etcd`, `snapshot` or `none`.
    pub source: &'static str,
    /// Revision of the store that its configuration is from.
    pub revision: i64,
    /// Routers by name.
    pub routers: BTreeMap<String, ReportedRouter>,
}

/// A router on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedRouter {
    /// `active`, `backup` or `initialize` (RFC 9568 section 6.4).
    pub state: &'static str,
    /// Since when, in seconds since 1970 by the node's own clock.
    pub since: u64,
}

/// What of a report tells two boxes from each other. Another version may have written it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Box {
    macs: Vec<String>,
    node_ip: Option<String>,
}

/// In words, the box that a report is of, unless it is the one that has `macs`.
pub(super) fn another_box(report: &[u8], macs: &[String]) -> Option<String> {
    // What is not a report is nobody's.
    let other: Box = serde_json::from_slice(report).ok()?;
    if other.macs.is_empty() || other.macs.iter().any(|mac| macs.contains(mac)) {
        return None;
    }
    let shown =
        |text: &str| -> String { text.chars().filter(|c| c.is_ascii_graphic()).take(45).collect() };
    let mac = other.macs.first().map(|mac| shown(mac)).unwrap_or_default();
    Some(match &other.node_ip {
        Some(ip) => format!("the box with MAC {mac} and address {}", shown(ip)),
        None => format!("the box with MAC {mac}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_whether_it_is_of_another_box() {
        let macs = ["00:11:22:33:44:55".to_owned(), "00:11:22:33:44:66".to_owned()];
        for (report, other) in [
            ("", false),
            ("[]", false),
            ("{}", false),
            ("{\"macs\": 3}", false),
            ("{\"macs\": []}", false),
            ("{\"macs\": [\"00:11:22:33:44:66\", \"x\"], \"new\": 1}", false),
            ("{\"macs\": [\"00:99:22:33:44:66\"]}", true),
        ] {
            assert_eq!(another_box(report.as_bytes(), &macs).is_some(), other, "{report}");
        }
        let hostile = "{\"macs\": [\"a\\u001b[31m\"], \"node_ip\": \"\\n\\n1.2.3.4\"}";
        let words = another_box(hostile.as_bytes(), &macs).unwrap();
        assert_eq!(words, "the box with MAC a[31m and address 1.2.3.4");
    }
}
