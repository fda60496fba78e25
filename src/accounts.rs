//! The users and groups of this machine: their names, whom a file belongs to, and what to do if this process may not use it.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid, getgroups};

/// Users below are the system's: services, and root. It is the default of `useradd`.
const FIRST_PERSON: u32 = 1000;
/// Symbolic links from one file to the next that are followed to the one that can't be read.
const MAX_LINKS: usize = 8;
const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

/// A line of `/etc/passwd` or `/etc/group`.
struct Entry {
    name: String,
    id: u32,
    /// The primary group of a user. Of a group, nothing that means anything.
    group: Option<u32>,
}

/// The accounts that this machine keeps itself; those of a directory service are not among them.
fn entries(file: &str) -> Vec<Entry> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let id = fields.nth(1)?.parse().ok()?;
        Some(Entry { name, id, group: fields.next().and_then(|group| group.parse().ok()) })
    };
    text.lines().filter_map(entry).collect()
}

fn users() -> Vec<Entry> {
    entries("/etc/passwd")
}

/// The name of a user, if this machine has one for the number.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    users().into_iter().find(|user| user.id == uid).map(|user| user.name)
}

/// The name of this machine.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A user as `chown` takes one: the name, or the number of one that has none.
fn user(uid: u32) -> String {
    user_name(uid).unwrap_or_else(|| uid.to_string())
}

fn group(gid: u32) -> String {
    let named = entries("/etc/group").into_iter().find(|group| group.id == gid);
    named.map_or_else(|| gid.to_string(), |group| group.name)
}

/// The number of a group, by its name.
pub(crate) fn group_id(name: &str) -> Option<u32> {
    entries("/etc/group").into_iter().find(|group| group.name == name).map(|group| group.id)
}

fn this_user() -> String {
    user(geteuid().as_raw())
}

/// Whether this process acts as root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

fn owner_and_mode(metadata: &Metadata) -> String {
    let (owner, group, mode) = (user(metadata.uid()), group(metadata.gid()), metadata.mode() & 0o7777);
    format!("belongs to {owner}:{group} (mode {mode:04o})")
}

/// How to run the same command as somebody else.
fn run_as(user: &str) -> String {
    format!("run this as {user} (`sudo -u {user} callgate …`)")
}

/// The error of reading a file, with whom the file belongs to and a remedy if this user may not.
pub(crate) fn read_error(path: &Path, error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::PermissionDenied {
        io::Error::new(ErrorKind::PermissionDenied, why_unreadable(path))
    } else {
        error
    }
}

/// The error of writing files of a folder, with a remedy if this user may not.
pub(crate) fn write_error(folder: &Path, error: io::Error) -> io::Error {
    let message = match (error.kind(), fs::metadata(folder)) {
        // Whoever made the message knew more than the system's number.
        _ if error.raw_os_error().is_none() => return error,
        (ErrorKind::PermissionDenied, Ok(metadata)) => {
            let remedy = match metadata.uid() {
                0 => "run this as root, or keep the token file in a folder of this user".to_owned(),
                owner => run_as(&user(owner)),
            };
            let (this, folder) = (this_user(), folder.display());
            format!(
                "can't be written by this user ({this}): the folder {folder} {}; {remedy}",
                owner_and_mode(&metadata)
            )
        }
        (ErrorKind::ReadOnlyFilesystem, _) => {
            let remedy = "keep the token file in a folder that this process may write \
                          (under systemd that of StateDirectory=, for example /var/lib/callgate)";
            format!("can't be written, for {} is read-only; {remedy}", folder.display())
        }
        _ => return error,
    };
    io::Error::new(error.kind(), message)
}

/// The error of a new file that can't be given to the owner and group of the file `old` that it is to replace, or lie beside.
pub(crate) fn chown_error(old: &Path, metadata: &Metadata) -> io::Error {
    let this = this_user();
    let remedy = match metadata.uid() {
        0 => format!("run this as root, or `sudo chown {this}: {}`", old.display()),
        owner => run_as(&user(owner)),
    };
    let (old, belongs) = (old.display(), owner_and_mode(metadata));
    let message =
        format!("can't be written, for {old} {belongs}, and this user ({this}) can't make such a file; {remedy}");
    io::Error::new(ErrorKind::PermissionDenied, message)
}

/// Why this user may not read a file, and what to do about it.
pub(crate) fn why_unreadable(path: &Path) -> String {
    let start = format!("can't be read by this user ({})", this_user());
    let Some((closed, metadata)) = closed(path) else { return format!("{start}: run this as a user who may") };
    let is_folder = metadata.is_dir();
    let subject = if is_folder { format!("the folder {}", closed.display()) } else { "it".to_owned() };
    let remedy = remedy(&closed, &metadata, if is_folder { ENTER } else { READ });
    format!("{start}: {subject} {}; {remedy}", owner_and_mode(&metadata))
}

/// The file itself if this user may look at it, or else the first folder on the way to it that lets nobody in.
fn closed(path: &Path) -> Option<(PathBuf, Metadata)> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path.ancestors().find_map(|part| {
        let part = if part.as_os_str().is_empty() { Path::new(".") } else { part };
        fs::metadata(part).ok().map(|metadata| (part.to_owned(), metadata))
    })
}

/// `wanted`: one of the three bits of a mode, of a file or folder that this user was refused.
fn remedy(path: &Path, metadata: &Metadata, wanted: u32) -> String {
    let shown = path.display();
    let (uid, letter) = (geteuid().as_raw(), if wanted == READ { "r" } else { "x" });
    let is_member = metadata.gid() == getegid().as_raw()
        || getgroups().is_ok_and(|groups| groups.iter().any(|group| group.as_raw() == metadata.gid()));
    let shift = if metadata.uid() == uid { 6 } else { 3 * u32::from(is_member) };
    if metadata.mode() >> shift & wanted != 0 {
        return "something else than its mode forbids it: an access list, SELinux or AppArmor".to_owned();
    }
    if metadata.uid() == uid {
        return format!("`chmod u+{letter} {shown}`");
    }
    if metadata.is_dir() && metadata.mode() & 0o777 == 0 {
        return "keep the file elsewhere, for example in /etc/callgate (under systemd, ProtectHome= closes folders)"
            .to_owned();
    }
    // A service can't become a person.
    let may_become = |other: &u32| uid >= FIRST_PERSON || *other < FIRST_PERSON;
    if let Some(reader) = reader(metadata, wanted).filter(may_become) {
        return run_as(&user(reader));
    }
    let is_own_folder = path.parent().and_then(|folder| fs::metadata(folder).ok()).is_some_and(|it| it.uid() == uid);
    if is_own_folder {
        return format!("give it to this user: `sudo chown {}: {shown}`", this_user());
    }
    let group = group(getegid().as_raw());
    format!("let this user's group in: `sudo chgrp {group} {shown} && sudo chmod g+{letter} {shown}`")
}

/// A user other than root who has what this one lacks: the owner, or one whose primary group is the file's.
fn reader(metadata: &Metadata, wanted: u32) -> Option<u32> {
    if metadata.uid() != 0 && metadata.mode() >> 6 & wanted != 0 {
        return Some(metadata.uid());
    }
    let is_for_group = metadata.gid() != 0 && metadata.mode() >> 3 & wanted != 0;
    let is_in_group = |user: &Entry| user.id != 0 && user.group == Some(metadata.gid());
    users().into_iter().find(|user| is_for_group && is_in_group(user)).map(|user| user.id)
}
