//! Where etcd is, and how this node reaches it: by the local file, or by the environment that the
//! original's agents run in.

use std::path::PathBuf;

use crate::config::{EtcdTls, NodeName, Settings};
use crate::store::endpoint::Scheme;
use crate::store::{Endpoint, Options};

/// Why a store that is configured cannot be asked.
pub type BadStore = String;

/// The environment, as `std::env::var(..).ok()` gives it.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// An etcd to follow or to ask.
#[derive(Clone, Debug)]
pub struct Access {
    /// What to ask it with.
    pub options: Options,
    /// What is odd about that.
    pub warnings: Vec<String>,
}

/// The process's own environment.
#[must_use]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.trim().is_empty())
}

/// Etcd, where the local file or the environment names one. `endpoints` stands for both.
///
/// # Errors
/// An endpoint that is none; half a pair of certificate and key.
pub fn access(
    settings: &Settings,
    node: &NodeName,
    endpoints: Option<&str>,
    environment: Environment<'_>,
) -> Result<Option<Access>, BadStore> {
    let mut warnings = Vec::new();
    let in_environment = environment("ETCD_ENDPOINTS");
    let (texts, place) = match (endpoints, &settings.etcd_endpoints, in_environment) {
        (Some(flag), _, _) => (vec![flag.to_owned()], "--endpoints"),
        (None, Some(file), environment) => {
            if environment.is_some() {
                warnings.push(
                    "ETCD_ENDPOINTS is not used: [etcd] endpoints in the local file beats it"
                        .into(),
                );
            }
            (file.clone(), "[etcd] endpoints")
        }
        (None, None, Some(text)) => (vec![text], "ETCD_ENDPOINTS"),
        (None, None, None) => return Ok(None),
    };
    let tls = tls(&settings.etcd_tls, environment, &mut warnings)?;
    // As etcdctl does: whoever gives certificates means them.
    let bare = if tls == EtcdTls::default() { Scheme::Http } else { Scheme::Https };
    let endpoints = Endpoint::parse_list(texts.iter().map(String::as_str), bare)
        .map_err(|error| format!("{place}: {error}"))?;
    let plain = endpoints.iter().find(|endpoint| endpoint.scheme == Scheme::Http);
    if let Some(plain) = plain.filter(|_| settings.etcd_login.is_some()) {
        warnings.push(format!(
            "the password for etcd goes to {plain} in plain text; use https:// where the server \
             has it"
        ));
    }
    if let Some(plain) = plain.filter(|_| bare == Scheme::Https) {
        warnings.push(format!(
            "the certificates of [etcd] are not used at {plain}; write https:// where the server \
             has it"
        ));
    }
    if tls.insecure_skip_verify {
        warnings.push(
            "etcd's certificate is not checked ([etcd] insecure_skip_verify): whoever stands \
             between this node and etcd can give it another configuration; set ca instead"
                .into(),
        );
    }
    let mut options = Options::new(endpoints, settings.prefix.clone(), node.clone());
    options.tls = tls;
    options.login = settings.etcd_login.clone();
    Ok(Some(Access { options, warnings }))
}

/// The file's certificates, else the environment's.
fn tls(
    file: &EtcdTls,
    environment: Environment<'_>,
    warnings: &mut Vec<String>,
) -> Result<EtcdTls, BadStore> {
    const NAMES: [&str; 3] = ["ETCD_CA", "ETCD_CERT", "ETCD_KEY"];
    let given = NAMES.map(|name| environment(name).map(PathBuf::from));
    if file.ca.is_some() || file.identity.is_some() || file.dir.is_some() {
        for (name, _) in NAMES.iter().zip(&given).filter(|(_, given)| given.is_some()) {
            warnings.push(format!(
                "{name} is not used: the certificates of [etcd] in the local file beat it"
            ));
        }
        return Ok(file.clone());
    }
    let mut tls = file.clone();
    let [ca, cert, key] = given;
    tls.ca = ca;
    tls.identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => return Err("ETCD_CERT: ETCD_KEY is missing beside it".into()),
        (None, Some(_)) => return Err("ETCD_KEY: ETCD_CERT is missing beside it".into()),
    };
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TomlFile, Tree, settings};

    fn found(file: &str, given: &[(&str, &str)]) -> Result<Option<Access>, BadStore> {
        let (settings, problems) = settings(&tree(file));
        assert!(problems.iter().all(|problem| !problem.is_error()), "{problems:?}");
        let environment = |name: &str| {
            given.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned())
        };
        access(&settings, &NodeName::new("gw1").unwrap(), None, &environment)
    }

    fn tree(file: &str) -> Tree {
        let (tree, problems) =
            Tree::from_toml(file, &TomlFile::Local("havip.toml".into())).unwrap();
        assert_eq!(problems, []);
        tree
    }

    #[test]
    fn nothing_is_asked_where_nothing_is_named() {
        assert!(found("", &[("ETCD_CA", "/ca.crt")]).unwrap().is_none());
    }

    #[test]
    fn the_environment_of_the_original_is_enough() {
        let given = [
            ("ETCD_ENDPOINTS", "https://10.0.0.1:2379,10.0.0.2:2379"),
            ("ETCD_CA", "/key/ca.crt"),
            ("ETCD_CERT", "/key/client.crt"),
            ("ETCD_KEY", "/key/client.key"),
        ];
        let Access { options, warnings } = found("", &given).unwrap().unwrap();
        assert!(options.endpoints.iter().all(|endpoint| endpoint.scheme == Scheme::Https));
        assert_eq!(options.tls.ca, Some("/key/ca.crt".into()));
        let pair = ("/key/client.crt".into(), "/key/client.key".into());
        assert_eq!(options.tls.identity, Some(pair));
        assert_eq!(warnings, [""; 0]);
        let error = found("", &given[..3]).unwrap_err();
        assert!(error.contains("ETCD_KEY is missing"), "{error}");
    }

    #[test]
    fn the_file_beats_the_environment_and_says_so() {
        let file = "[etcd]\nendpoints = [\"a\"]\ntls_dir = \"/key\"\n";
        let given = [("ETCD_ENDPOINTS", "b"), ("ETCD_CA", "/ca.crt")];
        let Access { options, warnings } = found(file, &given).unwrap().unwrap();
        assert_eq!(options.endpoints[0].to_string(), "https://a:2379");
        assert_eq!(options.tls.dir, Some("/key".into()));
        assert_eq!(options.tls.ca, None);
        assert!(warnings[0].contains("ETCD_ENDPOINTS") && warnings[1].contains("ETCD_CA"));
    }

    #[test]
    fn what_travels_in_plain_text_is_said() {
        let file = "[etcd]\nendpoints = [\"http://a\"]\nusername = \"gw1\"\n\
                    password_file = \"/pw\"\nca = \"/ca.crt\"\n";
        let Access { warnings, .. } = found(file, &[]).unwrap().unwrap();
        assert!(warnings[0].contains("in plain text"), "{warnings:?}");
        assert!(warnings[1].contains("are not used at http://a:2379"), "{warnings:?}");
    }
}
