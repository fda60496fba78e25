//! Files that root writes for a service, and files that this user may not use. The tests must be run by root: they play a service's
//! user (`daemon`) and somebody who may nothing (`nobody`).

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::gateway::PROGRAM;

/// Users that every Debian has, and whose groups have the same numbers.
const ROOT: u32 = 0;
const SERVICE: u32 = 1;
const NOBODY: u32 = 65534;
/// A group of which none of them is a member.
const ADM: u32 = 4;

/// The folders that deploy/README.md makes, and the program where everybody may run it.
struct Machine {
    root: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: TempDir::new().unwrap() };
        let program = machine.path("callgate");
        // A link costs nothing, where both are on one file system.
        fs::hard_link(PROGRAM, &program).or_else(|_| fs::copy(PROGRAM, &program).map(drop)).unwrap();
        for (folder, owner, group, mode) in [
            ("", ROOT, ROOT, 0o755),
            ("etc", ROOT, ROOT, 0o755),
            ("etc/tls", ROOT, SERVICE, 0o750),
            ("state", SERVICE, SERVICE, 0o750),
        ] {
            fs::create_dir_all(machine.path(folder)).unwrap();
            machine.own(folder, owner, group, mode);
        }
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        machine.write("etc/tls/cert.pem", &pair.cert.pem(), ROOT, SERVICE, 0o640);
        machine.write("etc/tls/key.pem", &pair.signing_key.serialize_pem(), ROOT, SERVICE, 0o640);
        machine.configure("tokens: { file: ../state/tokens.yaml }");
        machine
    }

    /// Writes the configuration, with this line in it.
    fn configure(&self, line: &str) {
        let text = format!(
            "tls: {{ certificates: [{{ cert: tls/cert.pem, key: tls/key.pem }}] }}\n{line}\n\
             routes: [{{ path: \"/{{*rest}}\", upstream: up }}]\nupstreams: {{ up: {{ endpoints: [\"http://127.0.0.1:1\"] }} }}\n"
        );
        self.write("etc/callgate.yaml", &text, ROOT, SERVICE, 0o640);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str, owner: u32, group: u32, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        self.own(name, owner, group, mode);
    }

    fn own(&self, name: &str, owner: u32, group: u32, mode: u32) {
        let given = chown(self.path(name), Some(owner), Some(group));
        given.expect("only root may play other users: run this test as root");
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Owner, group and mode of each file in `state`, by name.
    fn state(&self) -> Vec<(String, u32, u32, u32)> {
        let entries = fs::read_dir(self.path("state")).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        entries
    }

    fn run(&self, user: u32, words: &[&str]) -> Output {
        let mut command = Command::new(self.path("callgate"));
        command.current_dir(self.path("")).args(words).uid(user).gid(user);
        command.output().unwrap()
    }

    /// Makes a token.
    fn create(&self, user: u32) -> Output {
        let words = ["token", "create", "--config", "etc/callgate.yaml", "--name", "n", "--account", "acme"];
        self.run(user, &words)
    }

    fn check(&self, user: u32) -> Output {
        self.run(user, &["check", "etc/callgate.yaml"])
    }
}

fn good(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a command that failed said: its first line.
fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    said(output).lines().next().unwrap().to_owned()
}

#[test]
fn what_root_writes_belongs_to_the_service() {
    let machine = Machine::new();
    let files = ["tokens.yaml", "tokens.yaml.audit"].map(|name| (name.to_owned(), SERVICE, SERVICE, 0o600));
    // First as the very first command, then in place of files that are there.
    for user in [ROOT, SERVICE, ROOT] {
        good(&machine.create(user));
        assert_eq!(machine.state(), files, "written by {user}");
        good(&machine.check(SERVICE));
    }
}

#[test]
fn a_new_file_keeps_owner_group_and_mode_of_the_old_one() {
    let machine = Machine::new();
    machine.write("state/tokens.yaml", "tokens: []\n", NOBODY, ADM, 0o640);
    good(&machine.create(ROOT));
    let [token_file, trail] = ["tokens.yaml", "tokens.yaml.audit"].map(str::to_owned);
    // The trail is new and like the token file, not like the folder.
    assert_eq!(machine.state(), [(token_file, NOBODY, ADM, 0o640), (trail, NOBODY, ADM, 0o600)]);
}

#[test]
fn root_follows_no_link_of_the_service() {
    let machine = Machine::new();
    let outside = machine.path("etc/outside");
    symlink(&outside, machine.path("state/tokens.yaml.audit")).unwrap();
    good(&machine.create(ROOT));
    assert!(!outside.exists(), "a file was made where the link leads");
    let expected =
        format!("error: {}/tokens.yaml.audit: is a symbolic link: put the file itself in its place", state(&machine));
    assert_eq!(failed(&machine.create(ROOT)), expected);
    assert!(!outside.exists());
}

/// The state folder as commands print it that have found a file there.
fn state(machine: &Machine) -> String {
    machine.path("state").canonicalize().unwrap().display().to_string()
}

#[test]
fn a_file_that_this_user_may_not_read_is_reported_with_a_remedy() {
    let machine = Machine::new();
    good(&machine.create(ROOT));
    let as_service = "run this as daemon (`sudo -u daemon callgate …`)";
    let denied = "can't be read by this user (nobody):";

    let config = format!("etc/callgate.yaml: {denied} it belongs to root:daemon (mode 0640); {as_service}");
    assert_eq!(failed(&machine.check(NOBODY)), config);
    let serve = said(&machine.run(NOBODY, &["serve", "--log-format", "human", "--config", "etc/callgate.yaml"]));
    assert!(serve.contains(&format!("error: {config}\n")), "{serve}");
    assert_eq!(failed(&machine.create(NOBODY)), format!("error: {config}"));

    machine.own("etc/callgate.yaml", ROOT, SERVICE, 0o644);
    let key = said(&machine.check(NOBODY));
    let folder = format!("{denied} the folder etc/tls belongs to root:daemon (mode 0750); {as_service}");
    assert!(key.contains(&format!(".cert: etc/tls/cert.pem {folder}\n")), "{key}");
    assert!(key.contains(&format!(".key: etc/tls/key.pem {folder}\n")), "{key}");

    machine.own("etc/tls", ROOT, SERVICE, 0o755);
    machine.own("etc/tls/cert.pem", ROOT, SERVICE, 0o644);
    machine.own("etc/tls/key.pem", ROOT, ROOT, 0o600);
    machine.own("state", SERVICE, SERVICE, 0o755);
    let both = said(&machine.check(NOBODY));
    let grant = "let this user's group in: \
                 `sudo chgrp nogroup etc/tls/key.pem && sudo chmod g+r etc/tls/key.pem`";
    let key = format!(".key: etc/tls/key.pem {denied} it belongs to root:root (mode 0600); {grant}\n");
    assert!(both.contains(&key), "{both}");
    let tokens = "tokens.file: etc/../state/tokens.yaml";
    assert!(
        both.contains(&format!("{tokens} {denied} it belongs to daemon:daemon (mode 0600); {as_service}\n")),
        "{both}"
    );

    machine.write("etc/password", "secret", ROOT, SERVICE, 0o640);
    machine.configure("store: { redis: { url: \"redis://127.0.0.1:1\", password: \"file:password\" } }");
    machine.own("etc/callgate.yaml", ROOT, SERVICE, 0o644);
    let secret = said(&machine.check(NOBODY));
    let password = format!("the file etc/password {denied} it belongs to root:daemon (mode 0640); {as_service}\n");
    assert!(secret.contains(&password), "{secret}");
}

#[test]
fn a_service_that_may_not_read_its_file_is_given_it() {
    let machine = Machine::new();
    machine.write("state/tokens.yaml", "tokens: []\n", ROOT, ROOT, 0o600);
    let start = "tokens.file: etc/../state/tokens.yaml can't be read by this user (daemon): it belongs to";
    let remedy = "give it to this user: `sudo chown daemon: etc/../state/tokens.yaml`\n";
    let of_root = said(&machine.check(SERVICE));
    assert!(of_root.contains(&format!("{start} root:root (mode 0600); {remedy}")), "{of_root}");
    // A service can't run as a person.
    machine.own("state/tokens.yaml", NOBODY, NOBODY, 0o600);
    let of_person = said(&machine.check(SERVICE));
    assert!(of_person.contains(&format!("{start} nobody:nogroup (mode 0600); {remedy}")), "{of_person}");
    machine.own("state/tokens.yaml", SERVICE, SERVICE, 0);
    let own = said(&machine.check(SERVICE));
    assert!(own.contains("`chmod u+r etc/../state/tokens.yaml`\n"), "{own}");
}

#[test]
fn a_file_that_this_user_may_not_write_is_reported_with_a_remedy() {
    let machine = Machine::new();
    let open = |name: &str, owner: u32, mode: u32| machine.own(name, owner, owner, mode);
    open("etc/tls", ROOT, 0o755);
    for name in ["etc/callgate.yaml", "etc/tls/cert.pem", "etc/tls/key.pem"] {
        open(name, ROOT, 0o644);
    }
    open("state", SERVICE, 0o755);
    let folder = "the folder etc/../state belongs to daemon:daemon (mode 0755)";
    let why = "tokens.yaml.audit.pending: can't be written by this user (nobody):";
    let as_service = "run this as daemon (`sudo -u daemon callgate …`)";
    assert_eq!(failed(&machine.create(NOBODY)), format!("error: etc/../state/{why} {folder}; {as_service}"));

    // The file would lose its owner.
    open("state", NOBODY, 0o755);
    machine.write("state/tokens.yaml", "tokens: []\n", SERVICE, SERVICE, 0o644);
    let file = format!("{}/tokens.yaml belongs to daemon:daemon (mode 0644)", state(&machine));
    let why = format!("tokens.yaml: can't be written, for {file}, and this user (nobody) can't make such a file;");
    assert_eq!(failed(&machine.create(NOBODY)), format!("error: {}/{why} {as_service}", state(&machine)));
    assert_eq!(machine.state(), [("tokens.yaml".to_owned(), SERVICE, SERVICE, 0o644)], "nothing is left behind");
}

#[test]
fn a_link_to_a_file_in_a_closed_folder_names_that_folder() {
    let machine = Machine::new();
    machine.own("etc/tls", ROOT, SERVICE, 0o755);
    machine.own("etc/callgate.yaml", ROOT, SERVICE, 0o644);
    fs::create_dir(machine.path("etc/archive")).unwrap();
    fs::rename(machine.path("etc/tls/key.pem"), machine.path("etc/archive/key1.pem")).unwrap();
    symlink("../archive/key1.pem", machine.path("etc/tls/key.pem")).unwrap();
    machine.own("etc/archive", ROOT, SERVICE, 0o750);
    let text = said(&machine.check(NOBODY));
    assert!(
        text.contains("the folder etc/tls/../archive belongs to root:daemon (mode 0750); run this as daemon"),
        "{text}"
    );
}
