//! What operators change while a node is connected.

use havip::store::ErrorKind;

use crate::cluster::certs::Leaf;
use crate::cluster::{Cluster, Token};
use crate::node::{Node, SEED};
use crate::setup::{self, SetUp, write_secret};

/// Tokens of both kinds that no test outlives.
const TOKENS: [Option<Token>; 2] = [None, Some(Token::Jwt { ttl: 300 })];

/// A node at work.
fn at_work(set_up: &SetUp) -> Node {
    for (key, value) in SEED {
        set_up.cluster.put(key, value);
    }
    let mut node = Node::start(set_up.options.clone());
    node.reads_first();
    node.writes(&set_up.cluster);
    node.settles(&set_up.cluster);
    node
}

/// It goes on on the connection that it has.
#[track_caller]
fn goes_on(node: &mut Node, set_up: &SetUp) {
    node.writes(&set_up.cluster);
    node.hears_a_change(&set_up.cluster);
    node.is_undisturbed();
}

with_each_version! {

fn a_change_of_anothers_rights_disturbs_no_node(version: &'static str) {
    for token in TOKENS {
        let Some(set_up) = setup::password_with(version, token) else { return };
        set_up.cluster.add_user("other", Some("x"), &[]);
        let mut node = at_work(&set_up);
        set_up.cluster.grant("other", ("read", "/elsewhere", false));
        goes_on(&mut node, &set_up);
    }
}

fn a_password_is_changed_in_the_file_and_then_at_the_server(version: &'static str) {
    for token in TOKENS {
        let Some(set_up) = setup::password_with(version, token) else { return };
        let mut node = at_work(&set_up);
        let login = set_up.options.login.as_ref().expect("it has a password");
        write_secret(&login.password_file, "another\n");
        set_up.cluster.set_password("gw1", "another");
        goes_on(&mut node, &set_up);
    }
}

fn authentication_is_switched_off_and_on(version: &'static str) {
    for token in TOKENS {
        let Some(set_up) = setup::password_with(version, token) else { return };
        let mut node = at_work(&set_up);
        set_up.cluster.ctl(&["auth", "disable"]).expect("it is switched off");
        goes_on(&mut node, &set_up);
        node.settles(&set_up.cluster);
        set_up.cluster.ctl(&["auth", "enable"]).expect("it is switched on");
        goes_on(&mut node, &set_up);
    }
}

fn renewed_certificates_are_read_with_the_next_connection(version: &'static str) {
    let Some(mut set_up) = setup::client_certificate(version) else { return };
    let mut node = at_work(&set_up);
    let folder = set_up.options.tls.dir.clone().expect("it has a folder");
    let renew = |cluster: &Cluster, leaf: Leaf| {
        cluster.authority().write_leaf(&folder, "client", &leaf);
    };
    // Over before it was renewed: the connection goes on as long as it lasts.
    renew(&set_up.cluster, Leaf::default().expired());
    goes_on(&mut node, &set_up);
    set_up.cluster.restart(0);
    while node.follower.lost().kind() != ErrorKind::ClientCertificate {}
    renew(&set_up.cluster, Leaf::default());
    set_up.cluster.authority().write_leaf(&set_up.cluster.keys(), "server", &Leaf::server());
    node.hears_a_change_at_last(&set_up.cluster);
    node.writes(&set_up.cluster);
}

}
