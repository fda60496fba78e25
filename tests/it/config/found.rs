//! Which configuration file a command takes.

use std::process::{Command, Output};

use crate::support::gateway::{PROGRAM, Site};

fn check(site: &Site, arguments: &[&str], named: Option<&str>) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("check").args(arguments).current_dir(site.folder.path()).env_remove("CALLGATE_CONFIG");
    command.envs(named.map(|file| ("CALLGATE_CONFIG", file))).output().unwrap()
}

#[test]
fn the_file_is_named_or_found_in_this_folder() {
    let site = Site::new(
        "tokens: { file: tokens.yaml }\nroutes: [{ path: /a, upstream: a }]\nupstreams: { a: { endpoints: [\"http://127.0.0.1:9\"] } }",
    );
    std::fs::copy(site.config(), site.path("other.yaml")).unwrap();
    std::fs::write(site.path("broken.yaml"), "x").unwrap();
    let takes = |arguments: &[&str], named, file: &str| {
        let output = check(&site, arguments, named);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(
            said.contains(&format!("{file}: good")) || said.contains(&format!("{file}:1")),
            "{arguments:?}: {said}"
        );
    };
    takes(&[], None, "callgate.yaml");
    takes(&[], Some("other.yaml"), "other.yaml");
    takes(&["-c", "other.yaml"], Some("broken.yaml"), "other.yaml");
    takes(&["--config", "broken.yaml"], None, "broken.yaml");
    takes(&["other.yaml"], Some("broken.yaml"), "other.yaml");
    // Without a token file there is a warning.
    assert_eq!(check(&site, &[], None).status.code(), Some(0));
    assert_eq!(check(&site, &["--strict"], None).status.code(), Some(1));
    site.token(&["*"]);
    assert_eq!(check(&site, &["--strict"], None).status.code(), Some(0));
    std::fs::remove_file(site.config()).unwrap();
    if !std::path::Path::new("/etc/callgate/callgate.yaml").exists() {
        let none = check(&site, &[], None);
        let said = String::from_utf8(none.stderr).unwrap();
        assert_eq!(none.status.code(), Some(1));
        assert!(said.contains("neither ./callgate.yaml nor /etc/callgate/callgate.yaml"), "{said}");
    }
}
