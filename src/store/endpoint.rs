//! Where etcd listens, as operators write it: with or without a scheme, a port, brackets.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::config::shown::short;

/// etcd's port for clients.
const PORT: u16 = 2379;
/// Endpoints of one cluster: more members than any has.
const ENDPOINTS_MAX: usize = 64;
/// Bytes of a DNS name (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 253;

/// How an endpoint is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

/// Host part of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address: dialled without a resolver.
    Ip(IpAddr),
    /// A name that the system's resolver knows.
    Name(String),
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Where it is.
    pub host: Host,
    /// 1 to 65535.
    pub port: u16,
}

impl Endpoint {
    /// Reads one endpoint: `http://h:2379`, `https://h`, `h:2379`, `h`, `[::1]:2379`, `::1`; where
    /// no scheme is written it is `bare`.
    ///
    /// # Errors
    /// What is wrong, with the text.
    pub fn parse(text: &str, bare: Scheme) -> Result<Self, BadEndpoint> {
        let text = text.trim();
        without_password(text)?;
        let bad = |why| BadEndpoint { text: short(text), why };
        let (scheme, rest) = match text.split_once("://") {
            None => (bare, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some(_) => return Err(bad("the scheme is neither http:// nor https://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(bad("an endpoint has no path"));
        }
        let (host, port) = if let Some(inside) = rest.strip_prefix('[') {
            let (ip, after) = inside.split_once(']').ok_or_else(|| bad("the ] is missing"))?;
            let ip: Ipv6Addr = ip.parse().map_err(|_| bad("not an IPv6 address in the []"))?;
            let port = match after.strip_prefix(':') {
                None if after.is_empty() => None,
                None => return Err(bad("after the ] comes a port or nothing")),
                Some(port) => Some(port),
            };
            (Host::Ip(ip.into()), port)
        } else if let Ok(ip) = rest.parse::<Ipv6Addr>() {
            (Host::Ip(ip.into()), None)
        } else {
            let (host, port) = match rest.split_once(':') {
                None => (rest, None),
                Some((host, port)) => (host, Some(port)),
            };
            (name(host).map_err(bad)?, port)
        };
        let port = match port {
            None => PORT,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port != 0).ok_or_else(|| bad(BAD_PORT))?
            }
            Some(_) => return Err(bad(BAD_PORT)),
        };
        Ok(Self { scheme, host, port })
    }

    /// Reads a list: items with commas or white space between them, each as [`parse`](Self::parse)
    /// does. No endpoint twice.
    ///
    /// # Errors
    /// The first item that is wrong, or that there are none or too many.
    pub fn parse_list<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        bare: Scheme,
    ) -> Result<Vec<Self>, BadEndpoint> {
        let bad = |why| BadEndpoint { text: String::new(), why };
        let mut found = Vec::new();
        let mut items = Vec::new();
        for text in texts {
            // Before it is split: a password may have a comma.
            without_password(text)?;
            items.extend(text.split([',', ' ', '\t', '\n']));
        }
        for item in items.into_iter().filter(|item| !item.trim().is_empty()) {
            let endpoint = Self::parse(item, bare)?;
            if found.len() >= ENDPOINTS_MAX {
                return Err(bad("more than 64 endpoints"));
            }
            if !found.contains(&endpoint) {
                found.push(endpoint);
            }
        }
        if found.is_empty() { Err(bad("no endpoint")) } else { Ok(found) }
    }

    /// Host and port as they stand in a URI.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => format!("{ip}:{}", self.port),
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            Host::Name(name) => format!("{name}:{}", self.port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEndpoint {
    text: String,
    why: &'static str,
}

impl fmt::Display for BadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "endpoint \"{}\": {}; write for example http://10.0.0.1:2379",
            self.text, self.why
        )
    }
}

impl std::error::Error for BadEndpoint {}

const BAD_PORT: &str = "the port is not 1 to 65535";

/// Refuses what looks like a user and a password, and shows only what follows them.
fn without_password(text: &str) -> Result<(), BadEndpoint> {
    match text.rsplit_once('@') {
        None => Ok(()),
        Some((_, rest)) => Err(BadEndpoint {
            text: short(rest),
            why: "user and password do not belong into an endpoint",
        }),
    }
}

fn name(text: &str) -> Result<Host, &'static str> {
    if let Ok(ip) = text.parse() {
        return Ok(Host::Ip(ip));
    }
    if text.is_empty() || text.len() > NAME_MAX {
        return Err("the host has 1 to 253 characters");
    }
    // The resolver would read 10.0.0 or 010.0.0.1 as an address that nobody meant.
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err("neither an address nor a name");
    }
    let right = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.bytes().all(right) {
        Ok(Host::Name(text.to_ascii_lowercase()))
    } else {
        Err("a host name has letters, digits, \"-\", \"_\" and \".\" only")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> String {
        Endpoint::parse(text, Scheme::Http).unwrap().to_string()
    }

    #[test]
    fn every_way_that_operators_write_it_is_read() {
        for (text, as_uri) in [
            ("http://10.0.0.1:2379", "http://10.0.0.1:2379"),
            ("http://10.0.0.1:2379/", "http://10.0.0.1:2379"),
            ("https://etcd-1.example:12379", "https://etcd-1.example:12379"),
            ("HTTPS://Etcd-1", "https://etcd-1:2379"),
            ("10.0.0.1:4001", "http://10.0.0.1:4001"),
            ("etcd", "http://etcd:2379"),
            (" localhost:1 ", "http://localhost:1"),
            ("[::1]:2379", "http://[::1]:2379"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:2379"),
            ("2001:db8::1", "http://[2001:db8::1]:2379"),
        ] {
            assert_eq!(read(text), as_uri, "{text}");
            assert_eq!(read(as_uri), as_uri);
            let with_tls = Endpoint::parse(text, Scheme::Https).unwrap();
            assert_eq!(with_tls.scheme == Scheme::Http, text.starts_with("http://"), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused_with_its_text() {
        for text in [
            "",
            "http://",
            ":2379",
            "ftp://h",
            "h:0",
            "h:65536",
            "h:+1",
            "h:",
            "h:1:2",
            "[::1",
            "[::1]2379",
            "[10.0.0.1]:2379",
            "10.0.0",
            "1.2.3.256",
            "h/path",
            "h ost",
            "h\u{e9}",
        ] {
            let error = Endpoint::parse(text, Scheme::Http).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{text}\"")), "{error}");
        }
    }

    #[test]
    fn a_password_in_an_endpoint_is_refused_and_not_shown() {
        for text in ["http://root:hunter2@h:2379", "htps://root:hunter2@h", "root:hun,ter2@h"] {
            let one = Endpoint::parse(text, Scheme::Http).unwrap_err().to_string();
            let list = Endpoint::parse_list([text], Scheme::Http).unwrap_err().to_string();
            assert!(!one.contains("hun") && !list.contains("hun"), "{one} {list}");
        }
    }

    #[test]
    fn a_list_keeps_its_order_and_drops_repetitions() {
        let list = Endpoint::parse_list(["b:1, a:1,", "b:1 http://c"], Scheme::Http).unwrap();
        let shown: Vec<_> = list.iter().map(Endpoint::authority).collect();
        assert_eq!(shown, ["b:1", "a:1", "c:2379"]);
    }

    #[test]
    fn a_list_without_an_endpoint_and_one_without_end_are_refused() {
        assert!(Endpoint::parse_list([" , ", ""], Scheme::Http).is_err());
        let many: Vec<String> = (1..=65).map(|port| format!("h:{port}")).collect();
        assert!(Endpoint::parse_list(many.iter().map(String::as_str), Scheme::Http).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_read_is_written_the_same(
            text in "(https?://)?[a-z0-9.:\\[\\]@/\u{e9}-]{0,20}"
        ) {
            if let Ok(endpoint) = Endpoint::parse(&text, Scheme::Http) {
                prop_assert_eq!(Endpoint::parse(&endpoint.to_string(), Scheme::Https), Ok(endpoint));
            }
        }
    }
}
