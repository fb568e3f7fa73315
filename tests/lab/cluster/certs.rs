//! An authority and what it signs: good certificates and bad ones.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, date_time_ymd,
};

/// An authority with a key of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, Default)]
pub enum Validity {
    /// As long as these tests are run.
    #[default]
    Now,
    /// Until some year long ago.
    Expired,
    /// From a year far ahead.
    NotYet,
}

/// What a certificate says; all are for servers and for clients.
#[derive(Clone, Debug, Default)]
pub struct Leaf {
    /// The subject's common name: to etcd, of a client, its user.
    pub common_name: Option<String>,
    /// The IP addresses among the subject's alternative names.
    pub ips: Vec<IpAddr>,
    /// The DNS names among them.
    pub names: Vec<String>,
    /// When it is valid.
    pub validity: Validity,
}

impl Leaf {
    /// A server on loopback, named by IP addresses alone.
    pub fn server() -> Self {
        Self {
            ips: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            ..Self::default()
        }
    }

    /// A server that has a DNS name and no IP address.
    pub fn named(name: &str) -> Self {
        Self { names: vec![name.to_owned()], ..Self::default() }
    }

    /// A client, or a server of the old kind: a common name and no alternative ones.
    pub fn common_name(name: &str) -> Self {
        Self { common_name: Some(name.to_owned()), ..Self::default() }
    }

    /// The same, no longer valid.
    pub fn expired(self) -> Self {
        Self { validity: Validity::Expired, ..self }
    }

    /// The same, not valid yet.
    pub fn not_yet(self) -> Self {
        Self { validity: Validity::NotYet, ..self }
    }
}

impl Authority {
    /// A new one, that nobody trusts yet.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("havip test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, Validity::Now);
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.self_signed(&key).expect("it signs itself");
        Self {
            certificate: pem("CERTIFICATE", certificate.der()),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate with a new key, both as PEM.
    pub fn issue(&self, leaf: &Leaf) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name = match &leaf.common_name {
            Some(name) => common_name(name),
            None => DistinguishedName::new(),
        };
        let names = leaf.names.iter().map(|name| {
            SanType::DnsName(name.as_str().try_into().expect("a DNS name is of ASCII characters"))
        });
        params.subject_alt_names =
            leaf.ips.iter().map(|&ip| SanType::IpAddress(ip)).chain(names).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, leaf.validity);
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority signs");
        (pem("CERTIFICATE", certificate.der()), private_key(&key))
    }

    /// Writes its own certificate into a folder, as `ca.crt`.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.crt");
        write(&path, &self.certificate, 0o644);
        path
    }

    /// Issues a certificate into a folder, as `NAME.crt` and `NAME.key`, in place of what is there.
    pub fn write_leaf(&self, folder: &Path, name: &str, leaf: &Leaf) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(leaf);
        let paths = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        write(&paths.0, &certificate, 0o644);
        write(&paths.1, &key, 0o600);
        paths
    }
}

/// Writes a key pair for signing tokens by ES256 into a folder: the files of the public key and of
/// the private one.
pub fn write_token_keys(folder: &Path) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().expect("keys can be made");
    let paths = (folder.join("token.pub"), folder.join("token.key"));
    write(&paths.0, &pem("PUBLIC KEY", &key.subject_public_key_info()), 0o644);
    write(&paths.1, &private_key(&key), 0o600);
    paths
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Years that no clock which these tests run by is near.
fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let (from, until) = match validity {
        Validity::Now => (2000, 2098),
        Validity::Expired => (2000, 2001),
        Validity::NotYet => (2097, 2098),
    };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
}

fn private_key(key: &KeyPair) -> String {
    pem("PRIVATE KEY", &key.serialize_der())
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("ASCII"));
    let lines: String = lines.flat_map(|line| [line, "\n"]).collect();
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

/// In one step, so that nobody reads half a file.
fn write(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let file = fs::File::options().write(true).create_new(true).mode(mode).open(&new);
    let mut file = file.expect("the folder is writable");
    file.write_all(text.as_bytes()).expect("the disk has room");
    fs::rename(&new, path).expect("the folder is writable");
}
