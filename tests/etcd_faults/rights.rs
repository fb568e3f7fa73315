//! A node that may not read or write, for its rights, for room, or for its name.

use std::process::Command;

use havip::daemon::socket;
use havip::linux::clock;
use serde_json::Value;

use crate::lab::wait;
use crate::site::{ROUTERS, Site, local_file, ms, quick, vip};

scenarios! {
    a_right_that_is_taken_away_and_given_back
    a_full_database_and_a_failover_meanwhile
    two_boxes_with_one_name
}

fn a_right_that_is_taken_away_and_given_back(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut site = Site::start(test, quick(version), Some("sesame"))?;
    site.change();
    // Another's role changes the revision of the rights, which makes no difference.
    let link = site.store(0)["link_since_ms"].as_u64();
    site.cluster.add_user("other", Some("x"), &[("read", "/elsewhere", false)]);
    site.change();
    assert!(site.store(0)["link_since_ms"].as_u64() >= link, "it went on on its connection");
    let begin = clock::now();
    site.cluster.revoke("gw1", "/havip/", true);
    wait("it shows", || {
        site.store(0)["error"].as_str().is_some_and(|error| error.contains("permission denied"))
    });
    let noticed = clock::now().since(begin);
    let (code, said) = site.check(0);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("permission denied"), "{said}");
    site.listener.forget();
    wait("adverts go on", || site.listener.heard(1) >= 10);
    let begin = clock::now();
    site.cluster.grant("gw1", ("read", "/havip/", true));
    wait("it is back", || site.is_connected(0) && site.store(0)["error"].is_null());
    let back = clock::now().since(begin);
    site.change();
    site.is_calm();
    Some(format!("noticed after {}, back after {}", ms(noticed), ms(back)))
}

fn a_full_database_and_a_failover_meanwhile(
    test: &'static str,
    version: &'static str,
) -> Option<String> {
    let mut setup = quick(version);
    setup.extra.push("--quota-backend-bytes=2097152".into());
    let mut site = Site::start(test, setup, None)?;
    let before = site.active();
    site.cluster.fill_quota();
    site.gateways[before].1.signal("-KILL");
    site.gateways[before].1.ended();
    let after = 1 - before;
    wait("the other takes over", || {
        let (host, daemon) = &site.gateways[after];
        daemon.state() == "active" && host.has(&vip("1"))
    });
    wait("what is not written is said", || {
        site.store(after)["refused"].to_string().contains("database full")
    });
    let (code, said) = site.check(after);
    assert_eq!(code, Some(4), "{said}");
    assert!(site.is_connected(after), "reading goes on");
    let begin = clock::now();
    site.cluster.disarm();
    let own = format!("{},ff:ff:ff:ff:ff:ff", site.gateways[after].0.ip());
    wait("it is written", || {
        site.cluster.dump("/havip/vRouterGateway/").values().all(|value| *value == own)
    });
    let written = clock::now().since(begin);
    wait("and well", || site.check(after).0 == Some(0));
    Some(format!("written {} after the alarm was disarmed", ms(written)))
}

fn two_boxes_with_one_name(test: &'static str, version: &'static str) -> Option<String> {
    let mut site = Site::start(test, quick(version), None)?;
    let third = site.lan.host();
    let text = local_file(&third, &site.cluster.endpoints(), "");
    let own = format!("node = \"gw{}\"", third.number());
    let config = third.folder().join("havip.toml");
    std::fs::write(&config, third.config(&text).replace(&own, "node = \"gw1\"")).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_havip"));
    program.args(["run", "--config"]).arg(&config);
    let log = third.folder().join("log");
    let mut child = third.start(&mut program, &log);
    let socket = third.folder().join("run/havip.sock");
    let status = || -> Option<Value> {
        serde_json::from_slice(&socket::get(&socket, "/v1/status").ok()?).ok()
    };
    wait("it is refused", || {
        status().is_some_and(|status| {
            let why = status["config"]["store"]["name_taken"].to_string();
            why.contains("has this node's name") && why.contains(&site.gateways[0].0.ip())
        })
    });
    assert_eq!(status().unwrap()["vrrp"]["routers"].as_array().map(Vec::len), Some(0));
    assert!(site.store(0)["name_taken"].is_null(), "who was there first is not disturbed");
    site.change();
    site.is_calm();
    // The first one goes, and its name is free.
    let begin = clock::now();
    let killed = &mut site.gateways[0].1;
    killed.kill();
    wait("the other takes the name once the lease has ended", || {
        status().is_some_and(|status| {
            status["config"]["store"]["name_taken"].is_null()
                && status["vrrp"]["routers"].as_array().map(Vec::len) == Some(usize::from(ROUTERS))
        })
    });
    let taken = clock::now().since(begin);
    let _ = child.kill();
    let _ = child.wait();
    Some(format!("refused; the name was free {} after the first was killed", ms(taken)))
}
