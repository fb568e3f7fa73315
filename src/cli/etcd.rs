//! What the commands that ask etcd share.

use std::io;

use super::flags::{Flag, Given};
use super::{Exit, complain, config_path};
use crate::config::{NodeName, NodeNaming, Policy, Problem, Settings, Tree, settings};
use crate::daemon::access::{access, environment};
use crate::daemon::sources::{LoadError, Local};
use crate::offload;
use crate::store::{Dump, Error, ErrorKind, Options, dump_prefix};

pub(super) const ENDPOINTS_FLAG: Flag = Flag {
    long: "endpoints",
    short: None,
    value: Some("LIST"),
    help: "etcd's endpoints (default: as the local file or ETCD_ENDPOINTS says).",
};

/// An etcd to ask, and what the local file says about it.
pub(super) struct Store {
    pub(super) options: Options,
    pub(super) policy: Policy,
    /// Which node the local file says that this is.
    pub(super) node: Option<NodeName>,
}

/// Finds etcd by flag, local file or environment.
pub(super) fn find(given: &Given) -> Result<Store, Exit> {
    let settings = local_settings(given)?;
    offload::reactor().map_err(|error| {
        complain(&error.to_string());
        Exit::Failed
    })?;
    let wrong = |text: &str| {
        complain(text);
        Exit::Config
    };
    // These commands read for every node; whose name stands here does not matter.
    let node = NodeName::new("-").map_err(|why| wrong(why.0))?;
    let found = access(&settings, &node, given.value("endpoints"), &environment)
        .map_err(|error| wrong(&error))?
        .ok_or_else(|| {
            complain(
                "no etcd is named; use --endpoints, [etcd] endpoints in the local file, or \
                 ETCD_ENDPOINTS",
            );
            Exit::NoConfig
        })?;
    for warning in &found.warnings {
        complain(warning);
    }
    let node = match settings.node {
        NodeNaming::Name(node) => Some(node),
        NodeNaming::Host | NodeNaming::Mac(_) => None,
    };
    Ok(Store { options: found.options, policy: settings.policy, node })
}

/// The local file's settings, or the built-in ones if there is no such file and none was named.
fn local_settings(given: &Given) -> Result<Settings, Exit> {
    match Local::load(&config_path(given)) {
        Ok(local) => Ok(local.settings),
        Err(LoadError::Absent(_)) if given.value("config").is_none() => {
            Ok(settings(&Tree::default()).0)
        }
        Err(error) => Err(super::refused::report(&error)),
    }
}

/// Everything below the prefix.
pub(super) fn dump(store: &Store) -> Result<(Dump, Tree, Vec<Problem>), Exit> {
    let prefix = &store.options.prefix;
    let dump = smol::block_on(dump_prefix(&store.options, prefix))
        .map_err(|error| failed(error, Doing::Reading, prefix))?;
    let keys = dump
        .entries
        .iter()
        .map(|entry| (entry.key.as_slice(), entry.value.as_slice(), entry.mod_revision));
    let (tree, problems) = Tree::from_flat(prefix, keys);
    Ok((dump, tree, problems))
}

/// What a command asks etcd for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doing {
    /// All below the prefix.
    Reading,
    /// To put keys below it.
    Writing,
}

/// Says why etcd did not do it.
pub(super) fn failed(error: Error, doing: Doing, prefix: &str) -> Exit {
    const OTHER: &str = "or name another user in a file of your own ([etcd] username and \
                         password_file, or cert and key) with -c FILE";
    let kind = error.kind();
    let error = match (kind, doing) {
        (ErrorKind::PermissionDenied, Doing::Reading) => error.with_way_out(format!(
            "this command reads all below {prefix}: grant the user read on it, {OTHER}"
        )),
        (ErrorKind::PermissionDenied, Doing::Writing) => error.with_way_out(format!(
            "import writes below {prefix}: grant the user write on it, {OTHER}"
        )),
        (ErrorKind::WrongPassword, _) => {
            error.with_way_out("correct [etcd] username or the password file".to_owned())
        }
        _ => error,
    };
    complain(&format!("etcd: {error}"));
    let of_file = std::error::Error::source(&error)
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    if of_file || kind == ErrorKind::PermissionDenied { Exit::Permission } else { Exit::Failed }
}
