//! `havip status`: what the running daemon does.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::ask::Daemon;
use super::flags::{Command, Flag, Given, Word};
use super::{CONFIG_FLAG, Exit, JSON_FLAG, RUN_DIR_FLAG, complain, print};
use crate::daemon::Texts;
use crate::linux::clock;

pub(super) const COMMAND: Command = Command {
    name: "status",
    summary: "show what the running daemon does",
    about: "\
Asks the daemon over its control socket: state of each router and since when, who was heard,
which VIPs are where, what is wrong with the configuration, what was discarded. Ends with 7 if
no daemon answers; with --check, with 4 if not all is well, for monitoring.",
    argument: Word::Config,
    flags: &[
        CONFIG_FLAG,
        RUN_DIR_FLAG,
        JSON_FLAG,
        Flag { long: "watch", short: Some('w'), value: None, help: "Show it again each second." },
        Flag {
            long: "check",
            short: None,
            value: None,
            help: "Say only what is not well, a line each; end with 4 if there is anything.",
        },
    ],
    run,
};

/// For who asks a daemon by a signal.
pub(super) const TEXTS: Texts = Texts { status: render, counters };

fn run(given: &Given) -> Exit {
    if given.has("check") && (given.has("watch") || given.has("json")) {
        complain("status: --check goes with neither --watch nor --json; see havip status --help");
        return Exit::Usage;
    }
    let daemon = match Daemon::of(given) {
        Ok(daemon) => daemon,
        Err(exit) => return exit,
    };
    loop {
        let status = match daemon.status() {
            Ok(status) => status,
            Err(exit) => return exit,
        };
        if given.has("check") {
            return check(&status);
        }
        let text = if given.has("json") { format!("{status}\n") } else { render(&status) };
        if !given.has("watch") {
            print(&text);
            return Exit::Done;
        }
        // Home, print, and clear what is left of the picture before.
        let home = if given.has("json") { "" } else { "\x1b[H\x1b[J" };
        print(&format!("{home}{text}"));
        smol::block_on(smol::Timer::after(Duration::from_secs(1)));
    }
}

fn check(status: &Value) -> Exit {
    let found = not_well(status);
    for line in &found {
        print(&format!("{line}\n"));
    }
    if found.is_empty() { Exit::Done } else { Exit::Warnings }
}

/// What somebody should look at. Warnings about the box itself (no real-time priority) are not
/// among it: they stay as they are, and a check that always fails is not looked at.
fn not_well(status: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let (config, vrrp) = (&status["config"], &status["vrrp"]);
    let store = &config["store"];
    if store.is_object() {
        if store["connected"] != true {
            let error = store["error"].as_str().unwrap_or("no answer yet");
            let since = ago(&store["link_since_ms"]);
            found.push(format!("etcd: not connected for {since}: {error}"));
        } else if let Some(error) = store["error"].as_str() {
            found.push(format!("etcd: {error}"));
        }
        found.extend(of_store(store));
        if text(store, "source") != "etcd" {
            found.push(format!("etcd: values from {}", source(store)));
        }
    }
    for refused in list(&config["refused"]) {
        found.push(format!("file refused: {}", refused.as_str().unwrap_or("-")));
    }
    let problems = list(&config["problems"]).filter(|problem| problem["severity"] != "note");
    found.extend(problems.map(|problem| format!("configuration: {}", text(problem, "text"))));
    if vrrp["phase"] != "running" {
        found.push(format!("daemon: {}", text(vrrp, "phase")));
    }
    let guard = &status["guard"];
    if guard["state"] == "absent" {
        found.push(format!("guard: absent: {}", text(guard, "why")));
    }
    let fence = &status["fence"];
    if fence["state"] == "absent" {
        found.push(format!("fence: absent: {}", text(fence, "why")));
    }
    for router in list(&vrrp["routers"]) {
        let name = text(router, "name");
        let told = told(router).map(|(what, why)| format!("router {name}: {what}: {why}"));
        found.extend(told);
        found.extend(not_advertised(router).map(|why| format!("router {name}: {why}")));
        for vip in list(&router["vips"]).chain(list(&router["vips_excluded"])) {
            if vip["state"] == "missing" {
                found.push(format!("router {name}: {} is missing", text(vip, "address")));
            }
            // Who has a subnet's anycast address as an IPv6 VIP may mean it.
            if let Some(why) = vip["warning"].as_str()
                && !text(vip, "address").contains(':')
            {
                found.push(format!("router {name}: {}: {why}", text(vip, "address")));
            }
        }
    }
    found.extend(not_sent(vrrp));
    found
}

/// Interfaces through which packets could not be sent: each once, whatever families it has.
fn not_sent(vrrp: &Value) -> std::collections::BTreeSet<String> {
    let told = |port| {
        Some(format!("interface {}: {}", text(port, "interface"), port["not_sent"].as_str()?))
    };
    list(&vrrp["ports"]).filter_map(told).collect()
}

/// What is not as it should be with one router: what, and in which words.
fn told(router: &Value) -> impl Iterator<Item = (&'static str, &str)> {
    let words = [
        ("not_ready", "not ready"),
        ("held_back", "held back"),
        ("link_lost", "link lost"),
        ("unplaced", "without a VIP"),
    ];
    let words = words.map(|(key, what)| (what, &router[key]));
    let conflicts = list(&router["conflicts"]).map(|conflict| ("conflict", conflict));
    words.into_iter().chain(conflicts).filter_map(|(what, why)| Some((what, why.as_str()?)))
}

/// What a router holds without saying so to its peers.
fn not_advertised(router: &Value) -> Option<String> {
    let count = router["not_advertised"].as_u64().filter(|count| *count > 0)?;
    Some(format!(
        "{count} VIP(s) do not fit into an advert: they are on the interface, but not advertised; \
         raise the MTU of {}, or move them to vips_excluded or to another router",
        text(router, "interface")
    ))
}

/// What else is wrong between this node and the store.
fn of_store(store: &Value) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(store["name_taken"].as_str().map(|why| format!("etcd: {why}")));
    found.extend(
        list(&store["refused"]).filter_map(|text| Some(format!("etcd: {}", text.as_str()?))),
    );
    let held: Vec<&str> = list(&store["held"]).filter_map(Value::as_str).collect();
    if !held.is_empty() {
        found.push(format!(
            "held: {}: vanished from etcd without an order; havip confirm lets go",
            held.join(", ")
        ));
    }
    found
}

/// Where the values come from, with the age of a snapshot.
fn source(store: &Value) -> String {
    let written = store["snapshot_time"].as_u64();
    let now = clock::wall();
    match written {
        // A box without a battery clock may have written it in what is now the future.
        Some(time) if time <= now => {
            let age = ago(&Value::from((now - time) * 1000));
            format!("{}, written {age} ago", text(store, "source"))
        }
        Some(_) | None => text(store, "source").to_owned(),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

/// The status as a person reads it.
fn render(status: &Value) -> String {
    let mut out = String::new();
    let vrrp = &status["vrrp"];
    let _ = writeln!(
        out,
        "node {}  havip {}  up {}  {}",
        text(status, "node"),
        text(status, "version"),
        ago(&status["uptime_ms"]),
        text(vrrp, "phase"),
    );
    let _ = writeln!(
        out,
        "file {}, read {} ago",
        text(&status["config"], "file"),
        ago(&status["config"]["read_ms"])
    );
    let store = &status["config"]["store"];
    if store.is_object() {
        let link = if store["connected"] == true { "connected to" } else { "NOT CONNECTED, last" };
        let _ = writeln!(
            out,
            "etcd {link} {} for {}, values from {}, revision {}, taken over {} ago",
            text(store, "endpoint"),
            ago(&store["link_since_ms"]),
            source(store),
            store["revision"],
            ago(&store["since_ms"]),
        );
        if let Some(error) = store["error"].as_str() {
            let _ = writeln!(out, "etcd: {error}");
        }
        for line in of_store(store) {
            let _ = writeln!(out, "{line}");
        }
    }
    let _ = writeln!(
        out,
        "\n{:<16} {:<5} {:<9} {:<10} {:<8} {:<4} {:<24} VIPS",
        "ROUTER", "VRID", "INTERFACE", "STATE", "SINCE", "PRIO", "HEARD"
    );
    let idle: Vec<_> = status["config"]["idle"].as_object().into_iter().flatten().collect();
    if idle.is_empty() && list(&vrrp["routers"]).next().is_none() {
        let _ = writeln!(out, "none: node/{}/vrids lists no router", text(status, "node"));
    }
    for (name, why) in idle {
        let _ = writeln!(out, "{name:<16} does not run: {}", why.as_str().unwrap_or("-"));
    }
    for router in list(&vrrp["routers"]) {
        let heard = &router["heard"];
        let heard = if heard.is_object() {
            format!("{} ({}) {}", text(heard, "address"), heard["priority"], ago(&heard["ago_ms"]))
        } else {
            "-".to_owned()
        };
        let vips: Vec<String> = list(&router["vips"])
            .chain(list(&router["vips_excluded"]))
            .map(|vip| format!("{} {}", text(vip, "address"), text(vip, "state")))
            .collect();
        let _ = writeln!(
            out,
            "{:<16} {:<5} {:<9} {:<10} {:<8} {:<4} {:<24} {}",
            text(router, "name"),
            router["vrid"].to_string(),
            text(router, "interface"),
            text(router, "state"),
            ago(&router["since_ms"]),
            router["priority"].to_string(),
            heard,
            vips.join(", "),
        );
        for (what, why) in told(router) {
            let _ = writeln!(out, "{:<16} {what}: {why}", "");
        }
        if let Some(why) = not_advertised(router) {
            let _ = writeln!(out, "{:<16} {why}", "");
        }
        if let (Some(source), Some(why)) =
            (router["source"].as_str(), router["source_reason"].as_str())
        {
            let _ = writeln!(out, "{:<16} sends from: {source} ({why})", "");
        }
        for vip in list(&router["vips"]).chain(list(&router["vips_excluded"])) {
            let address = text(vip, "address");
            if let Some(other) = vip["other"].as_str() {
                let _ = writeln!(out, "{:<16} {address}: not from havip: {other}", "");
            }
            if let Some(why) = vip["warning"].as_str() {
                let _ = writeln!(out, "{:<16} {address}: {why}", "");
            }
        }
    }
    let mut tell = |what: &str, text: &str| {
        let _ = writeln!(out, "{what}: {text}");
    };
    for port in list(&vrrp["ports"]) {
        let counts: Vec<String> = port["discarded"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        if !counts.is_empty() {
            tell("discarded", &format!("{} {}", text(port, "interface"), counts.join(", ")));
        }
        if port["send_errors"].as_u64().unwrap_or(0) > 0 {
            tell("not sent", &format!("{} {}", text(port, "interface"), port["send_errors"]));
        }
    }
    for told in not_sent(vrrp) {
        tell("not sent", &told);
    }
    let guard = &status["guard"];
    let process = guard["pid"].as_u64().map_or_else(String::new, |pid| format!(", process {pid}"));
    let why = guard["why"].as_str().map_or_else(String::new, |why| format!(": {why}"));
    tell("guard", &format!("{}{process}{why}", text(guard, "state")));
    let fence = &status["fence"];
    let why = fence["why"].as_str().map_or_else(String::new, |why| format!(": {why}"));
    tell("fence", &format!("{}{why}", text(fence, "state")));
    for warning in list(&status["warnings"]) {
        tell("warning", warning.as_str().unwrap_or("-"));
    }
    for refused in list(&status["config"]["refused"]) {
        tell("file refused", refused.as_str().unwrap_or("-"));
    }
    for problem in list(&status["config"]["problems"]) {
        tell("configuration", text(problem, "text"));
    }
    for shadow in list(&status["config"]["shadowed"]) {
        tell("hidden", shadow.as_str().unwrap_or("-"));
    }
    out
}

/// What was counted, without what never happened.
fn counters(status: &Value) -> String {
    let mut out = String::new();
    let counts = |value: &Value| {
        let counts = value.as_object().into_iter().flatten();
        let counts = counts.filter(|(_, count)| count.as_u64() != Some(0));
        let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
        if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
    };
    for router in list(&status["vrrp"]["routers"]) {
        let counted = counts(&router["counters"]);
        let _ = writeln!(out, "counters: router {}: {counted}", text(router, "name"));
    }
    for port in list(&status["vrrp"]["ports"]) {
        let (interface, family) = (text(port, "interface"), text(port, "family"));
        let rest = ["unknown_vrid", "malformed", "send_errors"].map(|name| (name, &port[name]));
        let rest: Value = rest.into_iter().map(|(name, n)| (name.to_owned(), n.clone())).collect();
        let (discarded, rest) = (counts(&port["discarded"]), counts(&rest));
        let _ = writeln!(out, "counters: {interface} {family}: {rest}; discarded: {discarded}");
    }
    let _ = writeln!(out, "counters: notices that were not logged: {}", status["notices_lost"]);
    out
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Milliseconds in the largest unit that says enough.
fn ago(value: &Value) -> String {
    let ms = value.as_u64().unwrap_or(0);
    match ms {
        0..10_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        10_000..600_000 => format!("{}s", ms / 1000),
        600_000..172_800_000 => format!("{}m", ms / 60_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}
