//! The part of `/etc` that every program may need and that holds no secret.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use super::hide::{open_to_all, readable_by_all};
use super::write::Out;

/// Files made for each sandbox, or about this machine, its people and its disks.
const NEVER: &[&str] = &[
    ".pwd.lock",
    ".updated",
    "adjtime",
    "anacrontab",
    "apt/auth.conf",
    "apt/auth.conf.d",
    "at.deny",
    "bitcoin",
    "cni",
    "containers/auth.json",
    "credstore",
    "credstore.encrypted",
    "crontab",
    "crypttab",
    "docker",
    "exports",
    "fstab",
    "group",
    "hostid",
    "hostname",
    "hosts",
    "hosts.equiv",
    "iscsi",
    "kubernetes",
    "letsencrypt",
    "machine-id",
    "machine-info",
    "mtab",
    "multipath",
    "netplan",
    "network",
    "NetworkManager",
    "openvpn",
    "passwd",
    "ppp",
    "printcap",
    "rancher",
    "rc0.d",
    "rc1.d",
    "rc2.d",
    "rc3.d",
    "rc4.d",
    "rc5.d",
    "rc6.d",
    "rcS.d",
    "resolv.conf",
    "samba",
    "ssl/private",
    "strongswan",
    "swanctl",
    "systemd/network",
    "systemd/system",
    "udev",
    "wireguard",
    "wpa_supplicant",
    "iwd",
];

/// Beginnings of names that stand for secrets, wherever they are.
const STARTS: &[&str] = &[
    ".git-credentials",
    ".netrc",
    ".pgpass",
    "aliases",
    "cron.",
    "git-credentials",
    "gshadow",
    "group-",
    "htpasswd",
    "ipsec",
    "netrc",
    "passwd-",
    "passwd.",
    "shadow",
    "ssh_host_",
    "sshd_config",
    "subgid",
    "subuid",
    "sudoers",
];

/// Ends of names that stand for keys, and leftovers of editors and package managers.
const ENDS: &[&str] =
    &[".gpg~", ".jks", ".kdbx", ".key", ".keytab", ".p12", ".p8", ".pfx", ".secret", "~"];

/// What only a file with a secret in it holds, in lower case.
const MARKS: &[&[u8]] = &[
    b"_auth=",
    b"_authtoken",
    b":_password",
    b"api_key=",
    b"api_key =",
    b"apikey=",
    b"apikey =",
    b"authorization:",
    b"aws_secret",
    b"begin openssh private",
    b"bindpw",
    b"client_secret",
    b"private key-----",
    b"psk=",
    b"secret_key",
];

/// A larger file is no setting.
const MOST_BYTES: u64 = 8 << 20;

/// Whether an entry may be copied, by its path below `/etc`.
fn allowed(name: &Path) -> bool {
    let text = name.to_string_lossy();
    let last = name.file_name().map(|last| last.to_string_lossy().to_lowercase());
    let Some(last) = last else { return false };
    !NEVER.contains(&text.as_ref())
        && last != "private"
        && last != "secrets"
        && !STARTS.iter().any(|start| last.starts_with(start))
        && !ENDS.iter().any(|end| last.ends_with(end))
}

/// Whether a file's content shows a secret: a private key, a token, a password in a URL.
fn secret(content: &[u8]) -> bool {
    let lower = content.to_ascii_lowercase();
    let binary = lower.iter().take(1024).any(|byte| *byte == 0);
    let has = |mark: &[u8]| lower.windows(mark.len()).any(|window| window == mark);
    if binary {
        return has(b"private key-----");
    }
    MARKS.iter().any(|mark| has(mark)) || lower.split(|byte| *byte == b'\n').any(url_password)
}

/// `scheme://user:password@host` in a line.
fn url_password(line: &[u8]) -> bool {
    let mut rest = line;
    while let Some(at) = rest.windows(3).position(|window| window == b"://") {
        rest = &rest[at + 3..];
        let end = rest.iter().position(|byte| b"/ \t\"'<>".contains(byte)).unwrap_or(rest.len());
        let authority = &rest[..end];
        if let Some(host) = authority.iter().rposition(|byte| *byte == b'@')
            && host > 0
        {
            return true;
        }
    }
    false
}

fn walk(
    etc: &Path,
    folder: &Path,
    visit: &mut dyn FnMut(&Path, &Path, &Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Ok(name) = path.strip_prefix(etc) else { continue };
        let (true, Ok(meta)) = (allowed(name), path.symlink_metadata()) else { continue };
        let wanted = match meta.file_type() {
            kind if kind.is_symlink() => true,
            kind if kind.is_dir() => open_to_all(&path),
            kind => kind.is_file() && readable_by_all(&meta) && meta.len() <= MOST_BYTES,
        };
        if wanted {
            visit(name, &path, &meta)?;
            if meta.is_dir() {
                walk(etc, &path, visit)?;
            }
        }
    }
    Ok(())
}

/// The files that [`copy`] would look at, and those that accounts are made from.
pub(super) fn sources(etc: &Path) -> Vec<PathBuf> {
    let mut all = vec![etc.join("passwd"), etc.join("group")];
    let _ = walk(etc, etc, &mut |_, path, meta| {
        if !meta.is_dir() {
            all.push(path.to_path_buf());
        }
        Ok(())
    });
    all
}

/// Copies the settings of `etc` into `etc/` of the layer.
pub(super) fn copy(etc: &Path, out: &mut Out) -> io::Result<()> {
    walk(etc, etc, &mut |name, path, meta| {
        let name = Path::new("etc").join(name);
        if meta.is_symlink() {
            return match std::fs::read_link(path) {
                Ok(target) => out.link(&name, &target),
                Err(_) => Ok(()),
            };
        }
        if meta.is_dir() {
            return out.dir(&name, 0o755);
        }
        let Ok(content) = std::fs::read(path) else { return Ok(()) };
        if secret(&content) {
            return Ok(());
        }
        use std::os::unix::fs::MetadataExt;
        out.file(&name, &content, meta.mode() & 0o755 | 0o200, meta.modified().ok())
    })?;
    out.link("etc/mtab", Path::new("../proc/self/mounts"))?;
    out.file("etc/fstab", b"", 0o644, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_stay_outside() {
        let folder = tempfile::tempdir().unwrap();
        let etc = folder.path().join("host");
        let put = |name: &str, content: &str, mode: u32| {
            let path = etc.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let fine = [
            "profile",
            "ssh/ssh_config",
            "ssl/certs/ca.pem",
            "apt/sources.list",
            "login.defs",
            "alternatives/README",
        ];
        for name in fine {
            put(name, "see https://example.org/x?a=b@c\nmail me@example.org\n", 0o644);
        }
        for name in [
            "shadow",
            "shadow-",
            "gshadow",
            "passwd-",
            "sudoers",
            "sudoers.d/x",
            "machine-id",
            "hosts",
            "resolv.conf",
            "ssh/ssh_host_rsa_key.pub",
            "ssl/private/x",
            "app/x.key",
            "app/private/x",
            "docker/config.json",
            "apt/auth.conf.d/x",
            "cron.d/job",
            "netrc",
            "krb5.keytab",
            "subuid",
            "wireguard/wg0.conf",
        ] {
            put(name, "x", 0o644);
        }
        put("app.conf", "x", 0o640);
        put("closed/file", "x", 0o644);
        std::fs::set_permissions(etc.join("closed"), std::fs::Permissions::from_mode(0o750))
            .unwrap();
        put("proxy", "http_proxy=http://me:secret@proxy:3128/\n", 0o644);
        put("token", "x = https://token@git.example.org/\n", 0o644);
        put("server.pem", "-----BEGIN RSA PRIVATE KEY-----\n", 0o644);
        put("npmrc", "//registry.example.org/:_authToken=abc\n", 0o644);
        std::os::unix::fs::symlink("../usr/lib/os-release", etc.join("os-release")).unwrap();

        let root = folder.path().join("root");
        let mut out = Out::new(&root).unwrap();
        out.dir("etc", 0o755).unwrap();
        copy(&etc, &mut out).unwrap();
        let mut found = Vec::new();
        let mut todo = vec![root.join("etc")];
        while let Some(path) = todo.pop() {
            for entry in std::fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    todo.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(root.join("etc")).unwrap().to_path_buf();
                    found.push(name.display().to_string());
                }
            }
        }
        found.sort();
        let mut wanted: Vec<&str> = fine.to_vec();
        wanted.extend(["fstab", "mtab", "os-release"]);
        wanted.sort();
        assert_eq!(found, wanted);
        assert_eq!(std::fs::read(root.join("etc/fstab")).unwrap(), b"");
    }
}
