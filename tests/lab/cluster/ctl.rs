//! What is asked of a cluster through etcdctl: data, users, upkeep.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::{Cluster, Tls, binary, name};
use crate::lab::wait;

/// Password of root, once there are users.
pub const ROOT_PASSWORD: &str = "root-password";

/// What a user may do: `read`, `write` or `readwrite`, a key, and whether that is a prefix.
pub type Grant<'a> = (&'a str, &'a str, bool);

/// Bytes; a larger database still has what filled it.
const ROOM: u64 = 1024 * 1024;

impl Cluster {
    /// Runs etcdctl on the members that run, as root once there are users; what it says, or what
    /// is wrong.
    pub fn ctl(&self, args: &[&str]) -> Result<String, String> {
        self.run(&self.reachable(), self.user.as_deref(), args, "")
    }

    /// The same on one member.
    pub fn ctl_at(&self, index: usize, args: &[&str]) -> Result<String, String> {
        self.run(&self.endpoint(index), self.user.as_deref(), args, "")
    }

    /// The same as another user.
    pub fn ctl_as(&self, user: &str, password: &str, args: &[&str]) -> Result<String, String> {
        self.run(&self.reachable(), Some(&format!("{user}:{password}")), args, "")
    }

    /// The same as nobody, or as who the client's certificate says.
    pub fn ctl_without_user(&self, args: &[&str]) -> Result<String, String> {
        self.run(&self.reachable(), None, args, "")
    }

    fn reachable(&self) -> String {
        let running = (0..self.len()).filter(|&index| self.runs_connected(index));
        running.map(|index| self.endpoint(index)).collect::<Vec<_>>().join(",")
    }

    fn run(
        &self,
        endpoints: &str,
        user: Option<&str>,
        args: &[&str],
        input: &str,
    ) -> Result<String, String> {
        let mut program = self.program(endpoints, user);
        output(program.args(args), input)
    }

    /// etcdctl as `ctl` runs it, for those who run it in their own way.
    pub fn etcdctl(&self) -> Command {
        self.program(&self.reachable(), self.user.as_deref())
    }

    fn program(&self, endpoints: &str, user: Option<&str>) -> Command {
        let mut program = etcdctl(self.setup.version);
        program.arg(format!("--endpoints={endpoints}")).arg("--command-timeout=10s");
        let keys = self.client_keys();
        let file = |name| keys.join(name).display().to_string();
        match self.setup.tls {
            Tls::None | Tls::Peers => {}
            Tls::Auto => {
                program.args(["--insecure-transport=false", "--insecure-skip-tls-verify"]);
            }
            Tls::Server => {
                program.arg(format!("--cacert={}", file("ca.crt")));
                if self.setup.server.ips.is_empty() {
                    // It dials an address, and cannot be told the name.
                    program.arg("--insecure-skip-tls-verify");
                }
            }
            Tls::Clients | Tls::Mutual => {
                program.arg(format!("--cacert={}", file("ca.crt")));
                program.arg(format!("--cert={}", file("client.crt")));
                program.arg(format!("--key={}", file("client.key")));
            }
        }
        if let Some(user) = user {
            program.arg(format!("--user={user}"));
        }
        program
    }

    /// Writes a key.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        self.do_all(&[&["put", "--", key, value]]);
    }

    /// The same with a value that is too long for a command line.
    #[track_caller]
    pub fn put_large(&self, key: &str, value: &str) {
        let put = ["put", "--", key];
        self.run(&self.reachable(), self.user.as_deref(), &put, value).expect("it is written");
    }

    /// The value of a key.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<String> {
        let said = self.ctl(&["get", "--print-value-only", "--", key]).expect("it is read");
        Some(said.strip_suffix('\n')?.to_owned())
    }

    /// Deletes a key.
    #[track_caller]
    pub fn del(&self, key: &str) {
        self.ctl(&["del", "--", key]).expect("it is deleted");
    }

    /// Deletes all keys below a prefix.
    #[track_caller]
    pub fn del_prefix(&self, prefix: &str) {
        self.ctl(&["del", "--prefix", "--", prefix]).expect("they are deleted");
    }

    /// Does all of these operations, in etcdctl's words, at one revision.
    #[track_caller]
    pub fn txn(&self, operations: &[String]) {
        // No conditions, and nothing to do where they do not hold.
        let text = format!("\n{}\n\n\n", operations.join("\n"));
        let said = self.run(&self.reachable(), self.user.as_deref(), &["txn"], &text);
        if let Err(error) = said {
            panic!("etcdctl txn {operations:?}: {error}");
        }
    }

    /// All keys below a prefix, and their values.
    #[track_caller]
    pub fn dump(&self, prefix: &str) -> BTreeMap<String, String> {
        let answer = self.json(&["get", "--prefix", "--", prefix]);
        let text = |value: &Value| {
            let bytes = BASE64_STANDARD.decode(value.as_str().unwrap_or_default());
            String::from_utf8_lossy(&bytes.expect("etcdctl writes base64")).into_owned()
        };
        let pairs = answer["kvs"].as_array().into_iter().flatten();
        pairs.map(|pair| (text(&pair["key"]), text(&pair["value"]))).collect()
    }

    /// The store's revision.
    #[track_caller]
    pub fn revision(&self) -> i64 {
        self.json(&["get", "no such key"])["header"]["revision"].as_i64().expect("a number")
    }

    /// The cluster's id.
    #[track_caller]
    pub fn id(&self) -> u64 {
        self.json(&["get", "no such key"])["header"]["cluster_id"].as_u64().expect("a number")
    }

    /// What etcdctl answers, as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let args = [&["--write-out=json"], args].concat();
        let mut said = None;
        // A read is refused while a leader is elected, and can be asked again.
        wait("etcdctl answers", || {
            said = self.ctl(&args).ok();
            said.is_some()
        });
        serde_json::from_str(&said.unwrap_or_default()).expect("etcdctl writes JSON")
    }

    #[track_caller]
    fn do_all(&self, commands: &[&[&str]]) {
        for command in commands {
            if let Err(error) = self.ctl(command) {
                panic!("etcdctl {command:?}: {error}");
            }
        }
    }

    /// Makes the user root, by whom etcdctl runs from then on, and has everybody log in.
    #[track_caller]
    pub fn enable_auth(&mut self) {
        let root = format!("root:{ROOT_PASSWORD}");
        self.do_all(&[
            &["user", "add", &root],
            &["role", "add", "root"],
            &["user", "grant-role", "root", "root"],
            &["auth", "enable"],
        ]);
        self.user = Some(root);
    }

    /// Lets everybody in again; users and roles stay.
    #[track_caller]
    pub fn disable_auth(&mut self) {
        self.do_all(&[&["auth", "disable"]]);
        self.user = None;
    }

    /// Makes a user and a role of the same name. Without a password its certificate's common name
    /// makes a client this user.
    #[track_caller]
    pub fn add_user(&self, user: &str, password: Option<&str>, grants: &[Grant<'_>]) {
        match password {
            Some(password) => self.do_all(&[&["user", "add", &format!("{user}:{password}")]]),
            None => self.do_all(&[&["user", "add", user, "--no-password"]]),
        }
        self.do_all(&[&["role", "add", user], &["user", "grant-role", user, user]]);
        for &grant in grants {
            self.grant(user, grant);
        }
    }

    /// Lets a user do more.
    #[track_caller]
    pub fn grant(&self, user: &str, (permission, key, prefix): Grant<'_>) {
        let prefix = format!("--prefix={prefix}");
        self.do_all(&[&["role", "grant-permission", &prefix, "--", user, permission, key]]);
    }

    /// Takes back what was granted for a key.
    #[track_caller]
    pub fn revoke(&self, user: &str, key: &str, prefix: bool) {
        let prefix = format!("--prefix={prefix}");
        self.do_all(&[&["role", "revoke-permission", &prefix, "--", user, key]]);
    }

    /// Gives a user another password.
    #[track_caller]
    pub fn set_password(&self, user: &str, password: &str) {
        let args = ["user", "passwd", user, "--interactive=false"];
        let said = self.run(&self.reachable(), self.user.as_deref(), &args, password);
        said.expect("it is changed");
    }

    /// Deletes a user.
    #[track_caller]
    pub fn remove_user(&self, user: &str) {
        self.do_all(&[&["user", "delete", user]]);
    }

    /// Forgets all revisions before the present one, which it returns.
    #[track_caller]
    pub fn compact(&self) -> i64 {
        let revision = self.revision();
        self.do_all(&[&["compact", "--physical", &revision.to_string()]]);
        revision
    }

    /// Gives room that compaction freed back, on each member that runs.
    #[track_caller]
    pub fn defrag(&self) {
        self.do_all(&[&["defrag"]]);
    }

    /// Writes until the quota is used up (`--quota-backend-bytes=...` among `extra`) and every
    /// write fails with NOSPACE.
    #[track_caller]
    pub fn fill_quota(&self) {
        let value = "x".repeat(1024 * 1024);
        // etcdctl reads the value where there is none: the length of arguments is limited.
        let args = ["put", "--", "/havip-test-fill"];
        for _ in 0..100 {
            let said = self.run(&self.reachable(), self.user.as_deref(), &args, &value);
            match said {
                Ok(_) => {}
                Err(error) if error.contains("database space exceeded") => return,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("100 MiB fit: set --quota-backend-bytes");
    }

    /// Makes room again after `fill_quota`, and takes back the alarm.
    #[track_caller]
    pub fn disarm(&self) {
        self.del("/havip-test-fill");
        self.compact();
        // A member compacts by itself, and gives nothing back before it has: then the next write
        // raises the alarm again.
        wait("every member has room", || {
            self.defrag();
            let status = self.json(&["endpoint", "status"]);
            let mut sizes =
                status.as_array().expect("members").iter().map(|of| &of["Status"]["dbSize"]);
            sizes.all(|size| size.as_u64().expect("bytes") < ROOM)
        });
        self.do_all(&[&["alarm", "disarm"]]);
    }

    /// Hands leadership to another member.
    #[track_caller]
    pub fn move_leader(&self, to: usize) {
        let members = self.json(&["member", "list"]);
        let mut members = members["members"].as_array().expect("members").iter();
        let member = members.find(|member| member["name"] == name(to)).expect("it is a member");
        let id = format!("{:x}", member["ID"].as_u64().expect("a number"));
        // A member that has just come back may not be up to date yet: then it does not take it.
        wait("leadership moves", || {
            let leader = self.leader();
            leader == to || {
                let _ = self.ctl_at(leader, &["move-leader", &id]);
                false
            }
        });
    }

    /// Saves all data into a file of the cluster's folder.
    #[track_caller]
    pub fn snapshot(&self, file: &str) -> PathBuf {
        let path = self.folder().join(file);
        let to = path.display().to_string();
        self.ctl_at(self.leader(), &["snapshot", "save", &to]).expect("it is saved");
        path
    }

    /// Sets all members back to a snapshot. With another token it is another cluster, with another
    /// id; the revision goes back in any case.
    #[track_caller]
    pub fn restore(&mut self, snapshot: &Path, token: Option<&str>) {
        for index in 0..self.len() {
            self.kill(index);
        }
        if let Some(token) = token {
            token.clone_into(&mut self.token);
        }
        let scheme = match self.setup.tls {
            Tls::Auto | Tls::Peers | Tls::Mutual => "https",
            Tls::None | Tls::Server | Tls::Clients => "http",
        };
        let peers = self.peers();
        let initial: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(i, at)| format!("{}={scheme}://{at}", name(i)))
            .collect();
        for (index, peer) in peers.iter().enumerate() {
            let data = self.data(index);
            std::fs::remove_dir_all(&data).expect("its data is there");
            let mut program = etcdctl(self.setup.version);
            program.args(["snapshot", "restore"]).arg(snapshot).arg("--data-dir").arg(&data);
            program.args(["--name", &name(index), "--initial-cluster", &initial.join(",")]);
            program.args(["--initial-cluster-token", &self.token]);
            program.args(["--initial-advertise-peer-urls", &format!("{scheme}://{peer}")]);
            output(&mut program, "").expect("it is restored");
        }
        self.spawn_all();
        self.wait_healthy();
    }
}

fn etcdctl(version: &str) -> Command {
    let mut program = Command::new(binary(version, "etcdctl"));
    program.env_clear().env("ETCDCTL_API", "3");
    program
}

/// Runs a program on an input.
fn output(program: &mut Command, input: &str) -> Result<String, String> {
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().expect("the program is there");
    // Whether it reads its input is its own affair.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it is waited for once");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)).trim_end().to_owned())
}
