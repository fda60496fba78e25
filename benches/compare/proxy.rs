//! The programs that are compared: how each is started, set up for the same job as far as it can do it.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::program::{Program, callgate, free_port};
use crate::site::{Site, Store, Tokens};

const NGINX_CONFIG: &str = include_str!("nginx.conf");
/// Of Debian's packages libnginx-mod-http-lua and lua-nginx-redis.
const NGINX_NEEDS: [&str; 2] = ["/usr/lib/nginx/modules/ngx_http_lua_module.so", "/usr/share/lua/5.1/nginx/redis.lua"];
const LIMITS: &str = include_str!("limits.lua");
const HAPROXY_CONFIG: &str = include_str!("haproxy.cfg");

/// One of the programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proxy {
    Nginx,
    Haproxy,
    Callgate,
}

impl Proxy {
    /// In the order of the table's columns.
    pub(crate) const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Callgate];

    /// What the program says of its version; `None` if it, or what its configuration needs, is not installed.
    pub(crate) fn version(self) -> Option<String> {
        if self == Self::Nginx && !NGINX_NEEDS.iter().all(|file| Path::new(file).exists()) {
            return None;
        }
        let (program, order) = match self {
            Self::Nginx => ("nginx".to_owned(), "-v"),
            Self::Haproxy => ("haproxy".to_owned(), "-v"),
            Self::Callgate => (callgate(), "--version"),
        };
        version(&program, &[order])
    }

    /// Starts it with one worker.
    pub(crate) fn start(self, site: &Site, store: Store, access_log: bool) -> Program {
        match self {
            Self::Nginx => start_nginx(site, access_log),
            Self::Haproxy => start_haproxy(site, access_log),
            Self::Callgate => site.callgate(store, access_log, None),
        }
    }
}

/// The first line that a program prints when it is asked for its version.
pub(crate) fn version(program: &str, order: &[&str]) -> Option<String> {
    let output = Command::new(program).args(order).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}

fn start_nginx(site: &Site, access_log: bool) -> Program {
    let port = free_port();
    let known = all_tokens(site).map(|token| format!("\"Bearer {token}\" 1;"));
    let config = fill(
        NGINX_CONFIG,
        &[
            ("ACCESS_LOG", if access_log { "access.log" } else { "off" }),
            ("TOKENS", &known.collect::<Vec<_>>().join("\n")),
            ("UPSTREAM", &site.upstream.to_string()),
            ("CALLS", &site.calls.to_string()),
            ("REDIS", &site.redis.port().to_string()),
            ("PORT", &port.to_string()),
        ],
    );
    write(&site.path("nginx.conf"), &config);
    write(&site.path("limits.lua"), LIMITS);
    let mut command = site.cores.server("nginx");
    command.arg("-p").arg(site.path("")).arg("-c").arg(site.path("nginx.conf"));
    Program::start(command, port, &site.path("nginx.log"), || listens(port))
}

fn start_haproxy(site: &Site, access_log: bool) -> Program {
    let port = free_port();
    let read = |name| std::fs::read_to_string(site.path(name)).expect("the site's file");
    write(&site.path("both.pem"), &(read("cert.pem") + &read("key.pem")));
    let lines = |tokens: &mut dyn Iterator<Item = String>, value: &str| {
        tokens.map(|token| format!("Bearer {token}{value}\n")).collect::<String>()
    };
    write(&site.path("tokens.list"), &lines(&mut all_tokens(site), ""));
    write(&site.path("used_up.list"), &lines(&mut used_up_tokens(site), ""));
    let config = fill(
        HAPROXY_CONFIG,
        &[
            ("ACCESS_LOG", if access_log { "log global\n    option httplog" } else { "" }),
            ("UPSTREAM", &site.upstream.to_string()),
            ("CALLS", &site.calls.to_string()),
            ("PORT", &port.to_string()),
        ],
    );
    write(&site.path("haproxy.cfg"), &config);
    let mut command = site.cores.server("haproxy");
    command.arg("-db").arg("-f").arg(site.path("haproxy.cfg")).arg("-C").arg(site.path(""));
    Program::start(command, port, &site.path("haproxy.log"), || listens(port))
}

/// The tokens that are good, of both stores.
fn all_tokens(site: &Site) -> impl Iterator<Item = String> {
    let stores = [Store::Memory, Store::Redis].into_iter();
    stores.flat_map(|store| site.tokens(store, Tokens::Roomy)).chain(used_up_tokens(site))
}

fn used_up_tokens(site: &Site) -> impl Iterator<Item = String> {
    [Store::Memory, Store::Redis].into_iter().flat_map(|store| site.tokens(store, Tokens::UsedUp))
}

/// Writes the tokens' records to where `limits.lua` looks for them.
pub(crate) fn write_records(site: &Site) {
    for (tokens, limit) in [(Tokens::Roomy, "1000000"), (Tokens::UsedUp, "0")] {
        for token in site.tokens(Store::Redis, tokens) {
            let key = format!("{{{token}}}:token");
            let record = ["permission", "calls:read", "minute", "1000000", "hour", limit];
            let _: usize = site.redis.say(&[&["HSET", &key][..], &record].concat());
        }
    }
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let filled = |text: String, (name, value): &(&str, &str)| text.replace(&format!("@{name}@"), value);
    values.iter().fold(template.to_owned(), filled)
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a written file");
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
