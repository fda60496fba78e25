//! Where the listeners are: addresses with ports, and Unix sockets.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use crate::accounts;
use crate::config::{AdminAddress, Field, UnixSocket};

/// A socket that its owner can't use, or that has a mode beyond the usual bits, is a mistake.
const MODES: RangeInclusive<u32> = 0o600..=0o777;
/// The group may use it too.
const DEFAULT_MODE: u32 = 0o660;
/// Bytes of a path: sockaddr_un has 108, with a zero at the end. The socket is made under a longer name at first.
const MAX_PATH: usize = 98;

/// An IP address and a port.
pub(super) fn address(field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.word()?;
    let wrong = || {
        let port = text.strip_prefix(':').unwrap_or(&text);
        let remedy = if port.parse::<u16>().is_ok() {
            format!("write \"0.0.0.0:{port}\"")
        } else if text.parse::<IpAddr>().is_ok() {
            "add the port".to_owned()
        } else {
            "for example \"0.0.0.0:8443\" or \"[::]:8443\"".to_owned()
        };
        format!("must be an IP address and a port, not {} ({remedy})", field.shown())
    };
    field.accept(text.parse().map_err(|_| wrong()))
}

/// Where the admin listener is: an address, or a Unix socket, which may have a mode and a group.
pub(super) fn admin(field: &Field<'_>) -> Option<AdminAddress> {
    if !field.is_map() {
        return endpoint(field, DEFAULT_MODE, None);
    }
    let s = field.section();
    let place = s.require("address", "for example \"unix:/run/callgate/admin.sock\"");
    let mode = s.optional("mode", mode);
    let group = s.optional("group", group);
    let address = endpoint(&place?, mode.unwrap_or(DEFAULT_MODE), group)?;
    if let AdminAddress::Tcp(_) = address {
        for key in ["mode", "group"].into_iter().filter(|key| s.get(key).is_some()) {
            s.field_of(key).error("is for a Unix socket only (remove it, or set address to \"unix:PATH\")");
        }
    }
    Some(address)
}

fn endpoint(field: &Field<'_>, mode: u32, group: Option<u32>) -> Option<AdminAddress> {
    let text = field.word()?;
    let Some(path) = text.strip_prefix("unix:") else { return address(field).map(AdminAddress::Tcp) };
    if path.is_empty() {
        return field.accept(Err("names no file (for example \"unix:/run/callgate/admin.sock\")"));
    }
    let path = field.resolve(path);
    if path.as_os_str().len() > MAX_PATH {
        let long = path.as_os_str().len();
        return field.accept(Err(format!(
            "is too long for a socket: {long} bytes, at most {MAX_PATH} (choose a shorter path)"
        )));
    }
    if !path.parent().is_some_and(Path::is_dir) {
        field
            .warn(format!("the folder of {} does not exist (systemd makes it with RuntimeDirectory=)", path.display()));
    }
    Some(AdminAddress::Unix(UnixSocket { path, mode, group }))
}

fn mode(field: &Field<'_>) -> Option<u32> {
    let text = field.word()?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| MODES.contains(mode));
    field.must_be("the mode of a file in octal digits, 0600 to 0777", mode)
}

fn group(field: &Field<'_>) -> Option<u32> {
    let name = field.word()?;
    let id = name.parse().ok().or_else(|| accounts::group_id(&name));
    field.accept(id.ok_or_else(|| format!("this machine has no group {} (groupadd makes one)", field.shown())))
}
