//! Single values: text to type, with errors that say what would be right.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::model::{ChecksumMode, Lifetime, Prefix, Secret};
pub(super) use super::shown::short;
use super::tree::Value;
use crate::wire::Family;
use crate::wire::vrrp::{Centis, Priority, Version, Vrid};

/// Says what is wrong; never with the value of a secret.
pub(super) type Parsed<T> = Result<T, String>;

/// The text of a single value.
pub(super) fn single(value: &Value) -> Parsed<&str> {
    match value {
        Value::Text(text) => Ok(text),
        Value::List(list) => match list.as_slice() {
            [one] => Ok(one),
            _ => Err("one value is expected, not a list".into()),
        },
        Value::None => Err("a value is expected".into()),
    }
}

pub(super) fn number<T: std::str::FromStr + PartialOrd>(
    value: &Value,
    (least, most): (T, T),
    range: &str,
) -> Parsed<T> {
    let text = single(value)?;
    text.parse()
        .ok()
        .filter(|number| *number >= least && *number <= most)
        .ok_or_else(|| format!("\"{}\" is not a number from {range}", short(text)))
}

pub(super) fn vrid(value: &Value) -> Parsed<Vrid> {
    let number = number::<u8>(value, (1, 255), "1 to 255")?;
    Vrid::new(number).ok_or_else(|| "0 is not a VRID".into())
}

pub(super) fn priority(value: &Value) -> Parsed<Priority> {
    let number = number::<u8>(value, (1, 255), "1 to 255")?;
    Priority::new(number).ok_or_else(|| "0 is not a priority".into())
}

pub(super) fn boolean(value: &Value) -> Parsed<bool> {
    match single(value)? {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        other => Err(format!("\"{}\" is neither true nor false", short(other))),
    }
}

pub(super) fn version(value: &Value) -> Parsed<Version> {
    match single(value)? {
        "2" => Ok(Version::V2),
        "3" => Ok(Version::V3),
        other => Err(format!("\"{}\" is neither \"2\" nor \"3\"", short(other))),
    }
}

/// Seconds with up to two decimals, exact, to `most` hundredths.
fn hundredths(text: &str, most: u32) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    // 0.10 and 0.100 are the same; 0.105 is not a whole number of hundredths.
    let part = part.trim_end_matches('0');
    let part = match part.len() {
        0 => 0,
        1 => part.parse::<u32>().ok()? * 10,
        2 => part.parse().ok()?,
        _ => return None,
    };
    let total = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(part)?;
    (total <= most).then_some(total)
}

pub(super) fn advert_interval(value: &Value, version: Version) -> Parsed<Centis> {
    let text = single(value)?;
    let (range, whole) = match version {
        Version::V2 => ("whole seconds from 1 to 255 in version 2", true),
        Version::V3 => ("seconds from 0.01 to 40.95 in steps of 0.01", false),
    };
    let most = if whole { 25_500 } else { 4_095 };
    hundredths(text, most)
        .filter(|centis| *centis >= 1 && (!whole || (*centis >= 100 && centis % 100 == 0)))
        .and_then(|centis| u16::try_from(centis).ok())
        .map(Centis)
        .ok_or_else(|| format!("\"{}\" is not {range}", short(text)))
}

/// Seconds to a duration, 0 to `most` seconds.
pub(super) fn seconds(value: &Value, most: u32) -> Parsed<Duration> {
    let text = single(value)?;
    hundredths(text, most * 100)
        .map(|centis| Duration::from_millis(u64::from(centis) * 10))
        .ok_or_else(|| {
            format!(
                "\"{}\" is not a number of seconds from 0 to {most}, with at most two decimals",
                short(text)
            )
        })
}

pub(super) fn checksum(value: &Value) -> Parsed<ChecksumMode> {
    match single(value)? {
        "auto" => Ok(ChecksumMode::Auto),
        "both" => Ok(ChecksumMode::Both),
        "pseudo_header" => Ok(ChecksumMode::PseudoHeader),
        "rfc9568" => Ok(ChecksumMode::Rfc9568),
        other => {
            Err(format!("\"{}\" is none of auto, rfc9568, pseudo_header and both", short(other)))
        }
    }
}

pub(super) fn lifetime(value: &Value) -> Parsed<Lifetime> {
    match single(value)? {
        "auto" => Ok(Lifetime::Auto),
        "forever" => Ok(Lifetime::Forever),
        other => other
            .parse()
            .ok()
            .filter(|seconds| (2..=86_400).contains(seconds))
            .map(Lifetime::Seconds)
            .ok_or_else(|| {
                format!("\"{}\" is none of auto, forever and 2 to 86400 seconds", short(other))
            }),
    }
}

pub(super) fn auth_pass(value: &Value) -> Parsed<Secret> {
    let text = single(value)?;
    // Its length may be said, it itself may not.
    match text.len() {
        0 => Err("a password has 1 to 8 bytes, this one is empty".into()),
        1..=8 => Ok(Secret::new(text.to_owned())),
        length => Err(format!(
            "a password has 1 to 8 bytes, this one has {length}; of a longer one keepalived sends \
             only the first 8: write those"
        )),
    }
}

/// The name of a check program: a file's name in one directory, and no way out of it.
pub(super) fn program(value: &Value) -> Parsed<String> {
    let text = single(value)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > 64 || text.starts_with('.') || !text.bytes().all(allowed) {
        return Err(format!(
            "\"{}\" is not the name of a check program: 1 to 64 letters, digits, \"-\", \"_\" and \
             \".\", no path",
            short(text)
        ));
    }
    Ok(text.to_owned())
}

/// A network for a policy: like a VIP's prefix, and down to /0.
pub(super) fn network(text: &str) -> Parsed<Prefix> {
    match text.strip_suffix("/0") {
        Some(ip) => Ok(Prefix { len: 0, ..prefix(ip)? }),
        None => prefix(text),
    }
}

/// An address, or an address and the length of its prefix.
pub(super) fn prefix(text: &str) -> Parsed<Prefix> {
    let (ip, len) = match text.split_once('/') {
        Some((ip, len)) => (ip, Some(len)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().map_err(|_| format!("\"{}\" is not an IP address", short(text)))?;
    let bits = Family::of(&ip).bits();
    let len = match len {
        None => bits,
        Some(len) => len
            .parse()
            .ok()
            .filter(|len| (1..=bits).contains(len))
            .ok_or_else(|| format!("\"{}\": the prefix length is 1 to {bits}", short(text)))?,
    };
    Ok(Prefix { ip, len })
}

/// A list of VIPs in their order, without doubles; also gives the doubles.
pub(super) fn vips(value: &Value) -> Parsed<(Vec<Prefix>, Vec<Prefix>)> {
    let mut vips: Vec<Prefix> = Vec::new();
    let mut known = BTreeSet::new();
    let mut doubles = Vec::new();
    for vip in super::list::prefixes(value)? {
        usable(&vip).map_err(|why| format!("{vip}: {why}"))?;
        if known.insert(vip.ip) {
            vips.push(vip);
        } else {
            doubles.push(vip);
        }
    }
    Ok((vips, doubles))
}

fn usable(vip: &Prefix) -> Result<(), &'static str> {
    let ip = vip.ip;
    if ip.is_unspecified() {
        return Err("the unspecified address cannot be a VIP");
    }
    if ip.is_loopback() {
        return Err("a loopback address cannot be a VIP");
    }
    if ip.is_multicast() {
        return Err("a multicast address cannot be a VIP");
    }
    match ip {
        IpAddr::V4(ip) => {
            // Host bits; of a /31 and a /32 every address is a host's (RFC 3021).
            let hosts = u32::MAX.checked_shr(u32::from(vip.len)).unwrap_or(0);
            let bits = ip.to_bits();
            if ip == Ipv4Addr::BROADCAST || (vip.len < 31 && bits & hosts == hosts) {
                Err("a broadcast address cannot be a VIP")
            } else if vip.len < 31 && bits & hosts == 0 {
                Err("the address of a network itself cannot be a VIP")
            } else if bits >> 24 == 0 {
                Err("an address of 0.0.0.0/8 cannot be a VIP")
            } else {
                Ok(())
            }
        }
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Err("an IPv4-mapped address cannot be a VIP; write it as IPv4")
        }
        IpAddr::V6(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn intervals_are_exact_hundredths_of_a_second() {
        for (given, version, expected) in [
            ("1", Version::V3, Some(100)),
            ("0.01", Version::V3, Some(1)),
            ("0.1", Version::V3, Some(10)),
            ("0.100", Version::V3, Some(10)),
            ("40.95", Version::V3, Some(4095)),
            ("40.96", Version::V3, None),
            ("0", Version::V3, None),
            ("0.005", Version::V3, None),
            ("-1", Version::V3, None),
            ("1e2", Version::V3, None),
            (".5", Version::V3, None),
            ("1", Version::V2, Some(100)),
            ("255", Version::V2, Some(25_500)),
            ("256", Version::V2, None),
            ("0.4", Version::V2, None),
            ("1.5", Version::V2, None),
        ] {
            let parsed = advert_interval(&text(given), version);
            assert_eq!(parsed.as_ref().ok().map(|c| c.0), expected, "{given} in {version}");
        }
    }

    #[test]
    fn a_password_of_the_wrong_length_is_refused_without_being_shown() {
        let error = auth_pass(&text("much-too-long")).unwrap_err();
        assert!(!error.contains("much") && error.contains("13"), "{error}");
        assert!(auth_pass(&text("")).is_err());
        assert_eq!(auth_pass(&text("12345678")).unwrap().reveal(), "12345678");
    }

    #[test]
    fn vips_keep_their_order_and_lose_their_doubles() {
        let (vips, doubles) = vips(&text("10.0.0.9, 10.0.0.3/24,,10.0.0.9/24")).unwrap();
        let shown: Vec<_> = vips.iter().map(ToString::to_string).collect();
        assert_eq!((shown, doubles.len()), (vec!["10.0.0.9".into(), "10.0.0.3/24".into()], 1));
    }

    #[test]
    fn addresses_that_cannot_be_virtual_are_refused() {
        for bad in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.18",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "fe80::1/129",
            "10.0.0",
            "eth0",
            "10.0.0.1/",
            "fe80::1%eth0",
        ] {
            assert!(vips(&text(bad)).is_err(), "{bad}");
        }
    }
}
