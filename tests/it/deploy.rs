//! The files of `deploy/`, checked with the tools that read them: promtool, systemd, nginx and a YAML parser.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A command that Debian may keep in `/usr/sbin`, run in `folder`.
fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.current_dir(folder).env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let outcome = command(program, folder).args(arguments).output();
    outcome.unwrap_or_else(|error| panic!("{program}: {error} (tests/run installs what the tests need)"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every file below `deploy/`.
fn deployed() -> Vec<PathBuf> {
    let mut folders = vec![root().join("deploy")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn prometheus_accepts_its_configuration_and_the_alerts_fire() {
    let folder = root().join("deploy/prometheus");
    for arguments in
        [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]]
    {
        let output = run("promtool", &arguments, &folder);
        assert!(output.status.success(), "promtool {arguments:?}:\n{}", said(&output));
    }
    let (alerts, tests) = (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "no test shows that {alert} fires");
    }
}

#[test]
fn systemd_accepts_the_unit_and_rates_it_as_confined() {
    let unit = read("deploy/callgate.service");
    let folder = tempfile::tempdir().unwrap();
    let exec_start = setting(&unit, "ExecStart");
    let (binary, arguments) = exec_start.split_once(' ').unwrap();
    assert_eq!((binary, arguments), ("/usr/bin/callgate", "serve --config /etc/callgate/callgate.yaml"));
    let file = folder.path().join("callgate.service");
    fs::write(&file, unit.replace(binary, "/bin/true")).unwrap();

    for name in ["callgate@.service", "callgate.socket"] {
        fs::write(folder.path().join(name), read(&format!("deploy/{name}")).replace(binary, "/bin/true")).unwrap();
    }
    let units = ["callgate.service", "callgate@blue.service", "callgate.socket"].map(|name| folder.path().join(name));
    let paths = units.iter().map(|path| path.to_str().unwrap());
    let arguments: Vec<&str> = ["verify"].into_iter().chain(paths).collect();
    let output = run("systemd-analyze", &arguments, folder.path());
    // An unknown setting is only a warning to it.
    // Before version 253 it takes this type for the simple one.
    let is_old = |line: &str| line.ends_with("Failed to parse service type, ignoring: notify-reload");
    let complaints = said(&output).lines().filter(|line| !is_old(line)).count();
    assert!(output.status.success() && complaints == 0, "{}", said(&output));
    // An exposure of 2.0 of 10; the scale calls anything up to 4 "OK".
    for unit in [&units[0], &folder.path().join("callgate@.service")] {
        let arguments = ["security", "--offline=true", "--threshold=20", unit.to_str().unwrap()];
        let output = run("systemd-analyze", &arguments, folder.path());
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn the_token_file_of_the_recipe_is_where_the_unit_may_write() {
    let unit = read("deploy/callgate.service");
    let settings = ["ProtectSystem", "StateDirectory", "StateDirectoryMode"].map(|name| setting(&unit, name));
    assert_eq!(settings, ["strict", "callgate", "0750"]);
    let readme = read("deploy/README.md");
    let recipe = readme.split("\n## systemd\n").nth(1).and_then(|text| text.split("\n## ").next()).unwrap();
    let text = recipe.split("```yaml\n").nth(1).and_then(|text| text.split("```").next()).unwrap();
    let loaded = callgate::config::parse(Path::new("/etc/callgate/callgate.yaml"), text, &|_| None).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.tokens.file.as_deref(), Some(Path::new("/var/lib/callgate/tokens.yaml")));
}

/// The value of a setting in a unit.
fn setting<'a>(unit: &'a str, name: &str) -> &'a str {
    unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn a_stop_leaves_time_for_the_drain() {
    let seconds = |value: &Value| humantime::parse_duration(value.as_str().unwrap()).unwrap().as_secs();
    // The sum that docs/operations.md gives.
    let longest = |config: &str| {
        let drain = &yaml(config)["drain"];
        let [delay, timeout, calls, spread] = ["delay", "timeout", "calls", "spread"].map(|key| seconds(&drain[key]));
        delay + timeout.max(calls) + spread + 5
    };
    let compose = yaml("deploy/docker-compose.yml");
    for gateway in ["gateway-a", "gateway-b"] {
        let grace = seconds(&compose["services"][gateway]["stop_grace_period"]);
        assert!(grace >= longest("deploy/compose/callgate.yaml"), "{gateway}");
    }
    // The unit is for any configuration. The shipped one shows the defaults.
    let unit = read("deploy/callgate.service");
    assert!(setting(&unit, "TimeoutStopSec").parse::<u64>().unwrap() >= longest("config/callgate.yaml"));
}

#[test]
fn the_compose_file_is_complete() {
    let compose = yaml("deploy/docker-compose.yml");
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            if source.starts_with('.') {
                // The certificate is the operator's; the README says how to make one.
                let exists = root().join("deploy").join(source).exists() || source == "./compose/tls";
                assert!(exists, "{name} mounts {source}");
            } else {
                assert!(compose["volumes"].get(source).is_some(), "{name} mounts {source}");
            }
        }
        for network in service["networks"].as_array().into_iter().flatten() {
            assert!(compose["networks"].get(network.as_str().unwrap()).is_some(), "{name} joins {network}");
        }
    }
    assert_eq!(services["gateway-a"]["ports"], json!(["8443:8443"]));
    assert_eq!(services["gateway-b"]["ports"], json!(["8444:8443"]));
    let redis = services["redis"]["command"].to_string();
    assert!(redis.contains(r#""--appendonly","yes","--appendfsync","everysec""#), "{redis}");

    // Every target of Prometheus is a gateway, at its listener for metrics, whose port is published nowhere.
    let health = yaml("deploy/compose/callgate.yaml")["listen"]["health"].as_str().unwrap().to_owned();
    let prometheus = yaml("deploy/prometheus/prometheus.yml");
    let targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 2);
    for target in targets {
        let (gateway, port) = target.as_str().unwrap().split_once(':').unwrap();
        assert!(health.ends_with(&format!(":{port}")) && !services[gateway]["ports"].to_string().contains(port));
    }
}

#[test]
fn the_image_runs_what_the_package_builds() {
    let dockerfile = read("deploy/Dockerfile");
    let manifest = read("Cargo.toml");
    let package = |key: &str| {
        let line = manifest.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='));
        line.unwrap().trim().trim_matches('"').to_owned()
    };
    let binary = format!("/usr/bin/{}", package("name"));
    assert!(dockerfile.contains(&format!("ENTRYPOINT [\"{binary}\"]")), "the entry point is the binary");
    assert!(dockerfile.contains(&format!("CMD [\"{binary}\", \"healthcheck\"]")), "the health check is the binary's");
    let build = format!("cargo build --profile dist --no-default-features --locked --bin {}", package("name"));
    assert!(dockerfile.contains(&build) && manifest.contains("\n[profile.dist]\n"));
    assert!(
        dockerfile.contains(&format!("FROM rust:{}-", package("rust-version"))),
        "the image's Rust is the package's"
    );
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).expect("it names a user");
    assert!(!user.starts_with('0') && !user.starts_with("root"), "{user}");
    assert!(dockerfile.contains("\nEXPOSE 8443 9901\n"));

    let ignored = read(".dockerignore");
    for needed in ["src", "Cargo.toml", "Cargo.lock", "benches", "config", "tests"] {
        assert!(!ignored.lines().any(|line| line.trim_matches('/') == needed), "the build needs {needed}");
    }
}

/// An nginx that ends with the value.
struct Nginx {
    process: Child,
    port: u16,
    /// Where it runs.
    _folder: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Only an nginx that is still running can be told to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Nginx {
    /// Runs nginx on one of the configurations of the compose file, on a free port in place of `port`, and with `changes`
    /// made to it.
    fn start(configuration: &str, port: u16, changes: &[(&str, &str)]) -> Self {
        let mut servers = read(configuration);
        for (from, to) in changes {
            assert!(servers.contains(from), "{configuration} says {from}");
            servers = servers.replace(from, to);
        }
        let listen = format!("listen {port};");
        assert!(servers.contains(&listen), "{configuration} says {listen}");
        // Another process may take the free port first.
        (0..5).find_map(|_| Self::try_start(&servers, &listen)).expect("nginx starts (tests/run installs it)")
    }

    fn try_start(servers: &str, listen: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let servers = servers.replace(listen, &format!("listen 127.0.0.1:{port};"));
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind}_temp;"))
            .concat();
        // No master, so that one kill ends all of it.
        let head = "daemon off; master_process off; pid nginx.pid; error_log stderr; events {}";
        let text = format!("{head} http {{ access_log off; {temporary} {servers} }}");
        fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let mut nginx = command("nginx", folder.path());
        nginx.args(["-p", folder.path().to_str().unwrap(), "-c", "nginx.conf"]).stderr(Stdio::null());
        let process = nginx.spawn().expect("nginx is installed (tests/run does that)");
        let mut nginx = Self { process, port, _folder: folder };
        let deadline = Instant::now() + crate::support::WAIT_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if nginx.process.try_wait().unwrap().is_some() || Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(nginx)
    }

    async fn ask(&self, method: Method, path: &str) -> (StatusCode, String) {
        // Another test may have been first; which provider it is does not matter here.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::builder().no_proxy().build().unwrap();
        let request = client.request(method, format!("http://127.0.0.1:{}{path}", self.port));
        let answer = request.header("x-callgate-token-id", "abc").send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }
}

#[tokio::test]
async fn the_stand_in_api_shows_the_identity() {
    let nginx = Nginx::start("deploy/compose/api.conf", 3000, &[]);
    let (status, body) = nginx.ask(Method::GET, "/api/v1/x").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["token_id"], "abc");
}

#[test]
fn the_deploy_folder_contains_no_secret() {
    for path in deployed() {
        let is_key = path.extension().is_some_and(|extension| extension == "pem" || extension == "key");
        let ignored = path.parent().unwrap().ends_with("tls");
        assert!(!is_key || ignored, "{} is no file for the repository", path.display());
    }
}

#[test]
fn every_configuration_loads() {
    let is_configuration = |path: &PathBuf| path.file_name().is_some_and(|name| name == "callgate.yaml");
    let configurations: Vec<PathBuf> = deployed().into_iter().filter(is_configuration).collect();
    assert!(!configurations.is_empty());
    for path in configurations {
        // With the certificate that the README tells the operator to make.
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::create_dir(folder.path().join("tls")).unwrap();
        fs::write(folder.path().join("tls/fullchain.pem"), made.cert.pem()).unwrap();
        let key = folder.path().join("tls/privkey.pem");
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let copy = folder.path().join("callgate.yaml");
        fs::copy(&path, &copy).unwrap();
        let loaded = callgate::config::load(&copy).unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", path.display(), loaded.warnings);
    }
}
