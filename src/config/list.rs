//! Lists with ranges in them: routers as `51, lan4, 100-105`, VIPs as `192.0.2.10-20/24`.

use std::net::IpAddr;

use super::model::{Prefix, RouterName};
use super::shown::short;
use super::tree::Value;
use super::value::{Parsed, prefix};

/// Addresses of one range, and of one list.
const RANGE_MAX: u128 = 1024;
const VIPS_MAX: usize = 16_384;

/// The routers that one item of a list names.
pub(super) fn routers(item: &str) -> Parsed<Vec<RouterName>> {
    let name =
        |name: &str| RouterName::new(name).map_err(|why| format!("\"{}\": {why}", short(name)));
    let Some((first, last)) = numbers(item) else { return Ok(vec![name(item)?]) };
    // No leading zeros: one router has one name.
    let vrid = |text: &str| text.parse().ok().filter(|vrid: &u8| vrid.to_string() == text);
    match (vrid(first), vrid(last)) {
        (Some(first @ 1..), Some(last)) if first <= last => {
            (first..=last).map(|vrid| name(&vrid.to_string())).collect()
        }
        _ => Err(format!(
            "\"{}\" is no range of VRIDs: write the lower one, then \"-\" and the higher, 1 to 255",
            short(item)
        )),
    }
}

/// Every router that a list names; what names none is left to those who report it.
pub fn all_routers(value: &Value) -> impl Iterator<Item = RouterName> {
    value.items().filter_map(|item| routers(item).ok()).flatten()
}

/// Both ends of what looks like a range of numbers.
fn numbers(item: &str) -> Option<(&str, &str)> {
    let (first, last) = item.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(first) && is_number(last)).then_some((first, last))
}

/// The addresses of a list, in its order.
pub(super) fn prefixes(value: &Value) -> Parsed<Vec<Prefix>> {
    let mut all = Vec::new();
    for item in value.items() {
        match range(item)? {
            None => all.push(prefix(item)?),
            Some(range) => all.extend(range),
        }
        if all.len() > VIPS_MAX {
            return Err(format!("more than {VIPS_MAX} addresses in one list"));
        }
    }
    Ok(all)
}

/// The addresses of `FIRST-LAST` or `FIRST-LAST/LEN`, where LAST is an address, or the last part of
/// one as it is written: `192.0.2.10-20`, `2001:db8::a-f`. `None`: it is no range.
fn range(item: &str) -> Parsed<Option<Vec<Prefix>>> {
    let (ends, len) = item.split_once('/').map_or((item, None), |(ends, len)| (ends, Some(len)));
    let Some((first, last)) = ends.split_once('-') else { return Ok(None) };
    let (first, last) = (first.trim(), last.trim());
    let wrong = |why: &str| {
        format!("\"{}\" is no range of addresses, as in 192.0.2.10-20: {why}", short(item))
    };
    let separator = if first.contains(':') { ':' } else { '.' };
    let whole = match first.rsplit_once(separator) {
        Some((head, _)) if !last.contains(['.', ':']) => format!("{head}{separator}{last}"),
        Some(_) | None => last.to_owned(),
    };
    let address = |text: &str| text.parse::<IpAddr>().ok();
    let (Some(low), Some(high)) = (address(first), address(&whole)) else {
        return Err(wrong("write two addresses, or an address and the last part of another"));
    };
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    if low.is_ipv4() != high.is_ipv4() || bits(low) > bits(high) {
        return Err(wrong("write the lower address first, then a higher one of the same family"));
    }
    if bits(high) - bits(low) >= RANGE_MAX {
        return Err(wrong(&format!("it has more than {RANGE_MAX} addresses")));
    }
    let ip = |bits: u128| match low {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(bits).unwrap_or(u32::MAX).into()),
        IpAddr::V6(_) => IpAddr::V6(bits.into()),
    };
    let len = match len {
        None => Prefix::host(low).len,
        Some(len) => prefix(&format!("{low}/{len}"))?.len,
    };
    Ok(Some((bits(low)..=bits(high)).map(|bits| Prefix { ip: ip(bits), len }).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn a_range_of_vrids_names_each_router_of_it() {
        for (item, expected) in [
            ("51", Ok("51")),
            ("lan4", Ok("lan4")),
            ("lan-4", Ok("lan-4")),
            ("4-lan", Ok("4-lan")),
            ("100-103", Ok("100 101 102 103")),
            ("100 - 101", Ok("100 101")),
            ("7-7", Ok("7")),
            ("254-255", Ok("254 255")),
            ("103-100", Err("no range of VRIDs")),
            ("0-3", Err("no range of VRIDs")),
            ("254-256", Err("no range of VRIDs")),
            ("01-03", Err("no range of VRIDs")),
            ("1-2-3", Err("a router's name")),
            ("-3", Err("a router's name")),
            ("3-", Err("a router's name")),
        ] {
            let found = routers(item).map(|names| {
                let names: Vec<&str> = names.iter().map(RouterName::as_str).collect();
                names.join(" ")
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{item}"),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{item}: {why}"),
                (found, _) => panic!("{item}: {found:?}"),
            }
        }
        assert_eq!(all_routers(&text("1-3, x!, lan")).count(), 4);
    }

    #[test]
    fn a_range_of_addresses_is_each_of_them_with_its_length() {
        for (item, expected) in [
            ("192.0.2.10-12", Ok("192.0.2.10 192.0.2.11 192.0.2.12")),
            ("192.0.2.10-192.0.2.11", Ok("192.0.2.10 192.0.2.11")),
            ("192.0.2.10 - 11", Ok("192.0.2.10 192.0.2.11")),
            ("192.0.2.10-11/24", Ok("192.0.2.10/24 192.0.2.11/24")),
            ("192.0.2.255-192.0.3.0", Ok("192.0.2.255 192.0.3.0")),
            ("2001:db8::9-b", Ok("2001:db8::9 2001:db8::a 2001:db8::b")),
            ("fe80::1-fe80::2/64", Ok("fe80::1/64 fe80::2/64")),
            ("192.0.2.10-9", Err("write the lower address first")),
            ("192.0.2.10-fe80::1", Err("write the lower address first")),
            ("192.0.2.10-256", Err("write two addresses")),
            ("192.0.2.10-", Err("write two addresses")),
            ("-192.0.2.10", Err("write two addresses")),
            ("192.0.2.1-2-3", Err("write two addresses")),
            ("192.0.2.10-11/33", Err("the prefix length is 1 to 32")),
            ("10.0.0.0-10.0.4.0", Err("more than 1024 addresses")),
            ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Err("more than 1024 addresses")),
        ] {
            let found = prefixes(&text(item)).map(|all| {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                all.join(" ")
            });
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{item}"),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{item}: {why}"),
                (found, _) => panic!("{item}: {found:?}"),
            }
        }
        assert_eq!(prefixes(&text("10.0.0.0-10.0.3.255")).unwrap().len(), 1024);
        // A short text must not become an endless list.
        let many: Vec<String> = (0..17).map(|n| format!("10.{n}.0.0-10.{n}.3.255")).collect();
        let why = prefixes(&text(&many.join(","))).unwrap_err();
        assert!(why.contains("more than 16384 addresses"), "{why}");
    }
}
