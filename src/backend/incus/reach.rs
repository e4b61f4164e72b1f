//! Why a server can't be worked with, and what to do about it.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::client::Fail;
use crate::sandbox::Error;
use crate::transport::Place;

/// The group of who may use the daemon, where nothing else is known.
const GROUP: &str = "incus-admin";

/// Why the first request to a server failed. `host` is what the user called it.
pub(super) fn explain(fail: Fail, place: &Place, host: Option<&str>) -> Error {
    match (fail, place) {
        (Fail::Unreachable(text), Place::Unix(socket)) => closed(&text, socket),
        (Fail::Unreachable(text), Place::Tls(_)) => Error::Transport {
            message: format!(
                "{text}; does it listen there? On the server: incus config get core.https_address"
            ),
        },
        (Fail::Untrusted(text), Place::Tls(server)) if !server.is_pinned() => Error::Auth {
            message: format!(
                "{text}; get to know it first: sandscript remote add NAME https://{} --fingerprint SHA256 (the server says it: incus info | grep certificate_fingerprint), or with a token of its: --token TOKEN",
                server.authority()
            ),
        },
        (Fail::Untrusted(text), _) => {
            let name = host.filter(|host| !host.contains("://")).unwrap_or("NAME");
            let name = name.split('/').next().unwrap_or(name);
            Error::Auth {
                message: format!(
                    "{text}; if the server was given a new certificate, take the remote away and add it again: sandscript remote remove {name}"
                ),
            }
        }
        (fail, _) => fail.plain("connecting to the Incus server"),
    }
}

/// Why nobody answers at a socket.
fn closed(text: &str, socket: &Path) -> Error {
    match UnixStream::connect(socket).map_err(|error| error.kind()) {
        Err(ErrorKind::PermissionDenied) => Error::Auth {
            message: format!(
                "{text}; who may use it is in the group '{0}': sudo usermod -aG {0} $USER, and log in anew",
                group(socket)
            ),
        },
        Err(ErrorKind::NotFound) => Error::Transport {
            message: format!(
                "{text}; is Incus installed, and does its daemon run (systemctl start incus)? For a server elsewhere name it: --host"
            ),
        },
        Err(ErrorKind::ConnectionRefused) => Error::Transport {
            message: format!("{text}; its daemon does not run: systemctl start incus"),
        },
        _ => Error::Transport { message: format!("{text}; see: systemctl status incus") },
    }
}

/// The group that a socket is of.
fn group(socket: &Path) -> String {
    let known = || {
        let gid = std::fs::metadata(socket).ok()?.gid();
        let all = std::fs::read_to_string("/etc/group").ok()?;
        all.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            // One who is not let in is of no help as root.
            let found = fields.get(2)?.parse() == Ok(gid) && gid != 0;
            found.then(|| fields[0].to_owned())
        })
    };
    known().unwrap_or_else(|| GROUP.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_listens_at_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let said = |socket: &Path| closed("T", socket).to_string();
        assert!(said(&socket).contains("is Incus installed"), "{}", said(&socket));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(said(&socket).ends_with("T; its daemon does not run: systemctl start incus"));
        assert!(!group(&socket).is_empty());
    }
}
