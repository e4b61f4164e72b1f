//! The root file systems that fake sandboxes start from.

use std::time::SystemTime;

use super::builtin;
use super::tree::{Data, Node, Tree};

/// A named image.
#[derive(Clone)]
pub(super) struct Image {
    pub fingerprint: String,
    pub tree: Tree,
}

impl Image {
    /// The usual folders, three users, and the built-in commands as files in `/usr/bin`.
    /// `version` goes into the fingerprint and `/etc/image`.
    pub fn new(version: &str, now: SystemTime) -> Self {
        let mut tree = Tree::new(now);
        let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let dir = Node::dir(0o755, now);
        let folders = [
            "dev",
            "etc",
            "home/user",
            "opt",
            "proc",
            "run",
            "srv",
            "sys",
            "usr/bin",
            "usr/lib",
            "usr/local/bin",
            "var/lib",
        ];
        for path in folders {
            let made = tree.mkdirs("/", path, &dir);
            debug_assert!(made.is_ok(), "{path}");
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\
            user:x:1000:1000:user:/home/user:/bin/sh\n\
            nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
        let group = "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n";
        let mut user = Node::dir(0o755, now);
        (user.uid, user.gid) = (1000, 1000);
        if let Some(home) = tree.get_mut(&parts("home/user")) {
            *home = user;
        }
        let device = Node { mode: 0o666, data: Data::Null, ..dir };
        let mut nodes = vec![
            ("bin", Node::symlink("usr/bin", now)),
            ("dev/null", device),
            ("etc/group", Node::file(group, 0o644, now)),
            ("etc/image", Node::file(format!("{version}\n"), 0o644, now)),
            ("etc/passwd", Node::file(passwd, 0o644, now)),
            ("root", Node::dir(0o700, now)),
            ("tmp", Node::dir(0o1777, now)),
            ("var/tmp", Node::dir(0o1777, now)),
        ];
        let commands: Vec<_> =
            builtin::FILES.iter().map(|name| format!("usr/bin/{name}")).collect();
        for path in &commands {
            nodes.push((path, Node::file(builtin::MARK, 0o755, now)));
        }
        for (path, node) in nodes {
            let put = tree.put(&parts(path), node);
            debug_assert!(put.is_ok(), "{path}");
        }
        let fingerprint = blake3::hash(format!("fake {version}").as_bytes()).to_hex().to_string();
        Image { fingerprint, tree }
    }
}
