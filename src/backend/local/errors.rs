//! From failed steps to errors that say what to do.

use super::mode::Mode;
use super::protocol::{Failure, Refusal};
use crate::sandbox::{Error, Kind};

const BACKEND: &str = "local";

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        if let libc::ENOSPC | libc::EDQUOT = failure.errno
            && !failure.what.contains("namespace")
        {
            return Error::Exhausted {
                what: format!("no space left: {}", failure.what),
                hint: "free some space, or choose another folder with --store".into(),
            };
        }
        if let libc::EMFILE | libc::ENFILE = failure.errno {
            return Error::too_many_files(&failure.what);
        }
        if failure.errno == 0 {
            return Error::internal(failure.what);
        }
        let error = std::io::Error::from_raw_os_error(failure.errno);
        Error::io(format!("{} failed", failure.what), error)
    }
}

/// Begins the description of a failure to put a user's mount in its place.
pub const MOUNT_TARGET: &str = "mounts: ";

/// What a failed launch or keeper means, given the rights it had.
pub fn from_failure(failure: &Failure, mode: &Mode) -> Error {
    // Mapping id 0 takes a capability that this root may lack.
    if let Mode::Single { uid: 0, reason, .. } = mode
        && failure.what.starts_with("writing ")
        && failure.errno == libc::EPERM
    {
        return Error::unsupported("making user namespaces", BACKEND, reason.clone());
    }
    if let Some(target) = failure.what.strip_prefix(MOUNT_TARGET) {
        let hint = match failure.errno {
            libc::ELOOP => "a part of it is a link there: name the folder that it leads to",
            libc::ENOTDIR | libc::EISDIR => "a folder goes over a folder, and a file over a file",
            _ => "name another place",
        };
        let error = std::io::Error::from_raw_os_error(failure.errno);
        return Error::invalid_hint("mounts", format!("target '{target}': {error}"), hint);
    }
    let namespaces =
        failure.what.contains("namespace") || failure.what.starts_with("writing uid_map");
    if namespaces
        && matches!(
            failure.errno,
            libc::EPERM | libc::ENOSPC | libc::EUSERS | libc::EINVAL | libc::ENOSYS | libc::EACCES
        )
    {
        return Error::unsupported(
            "making user namespaces",
            BACKEND,
            namespace_hint(failure.errno),
        );
    }
    if failure.what.contains("mapping the ids")
        && matches!(failure.errno, libc::EINVAL | libc::EPERM)
    {
        return Error::unsupported(
            failure.what.clone(),
            BACKEND,
            "its file system can't map ids: put the store on ext4, xfs, btrfs or tmpfs with --store",
        );
    }
    if failure.what == "mounting the overlay" && failure.errno == libc::EINVAL {
        return Error::unsupported(
            failure.what.clone(),
            BACKEND,
            "overlayfs refuses these folders: put the store on ext4, xfs, btrfs or tmpfs with --store, and use Linux 6.8 or later",
        );
    }
    if failure.what == "mounting /proc" && failure.errno == libc::EPERM && *mode != Mode::Root {
        return Error::unsupported(
            failure.what.clone(),
            BACKEND,
            "parts of this machine's /proc are hidden, as in a container: run the container with `--security-opt systempaths=unconfined`",
        );
    }
    failure.clone().into()
}

/// Which setting forbids user namespaces here.
pub fn namespace_hint(errno: i32) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    if read("/proc/sys/user/max_user_namespaces") == "0" || errno == libc::ENOSPC {
        return "user namespaces are used up or switched off: `sysctl -w user.max_user_namespaces=15000` as root".into();
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return "this kernel keeps user namespaces for root: `sysctl -w kernel.unprivileged_userns_clone=1` as root".into();
    }
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return "AppArmor keeps user namespaces for some programs: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root".into();
    }
    "a system call filter forbids user namespaces, as in a container: run it with `--security-opt seccomp=unconfined`, or on the host".into()
}

/// What an init's refusal means.
pub fn from_refusal(sandbox: &str, code: Refusal, what: String, message: String) -> Error {
    match code {
        Refusal::Frozen => {
            Error::Busy { name: sandbox.into(), what: "it is frozen; thaw it first".into() }
        }
        Refusal::Invalid => Error::invalid(what, message),
        Refusal::NotFound => Error::not_found_hint(Kind::File, what, message),
        Refusal::NoProgram => Error::not_found(Kind::Command, what),
        Refusal::NoUser => Error::not_found(Kind::User, what),
        Refusal::Permission => Error::Permission { what },
        Refusal::Full => Error::Exhausted {
            what: format!("no space left in sandbox '{sandbox}' for {what}"),
            hint: "delete something in it, or give it more with `disk` and `inodes`".into(),
        },
        Refusal::UnmappedUser => Error::unsupported(
            format!("user {what}"),
            BACKEND,
            match message.as_str() {
                "0" | "" => {
                    "this sandbox has root only: `sandscript doctor` says how to get more user ids"
                        .into()
                }
                last => format!("user and group ids of this sandbox go from 0 to {last}"),
            },
        ),
    }
}
