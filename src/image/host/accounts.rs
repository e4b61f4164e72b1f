//! Users and groups of the guest: the system's, without people.

use std::io;

use super::write::Out;

const NOBODY: u32 = 65534;
const FIRST_PERSON: u32 = 1000;

/// Writes `/etc/passwd` and `/etc/group`.
pub(super) fn write(out: &mut Out) -> io::Result<()> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    out.file("etc/passwd", passwd(&read("/etc/passwd")).as_bytes(), 0o644, None)?;
    out.file("etc/group", group(&read("/etc/group")).as_bytes(), 0o644, None)
}

fn system(id: u32) -> bool {
    id < FIRST_PERSON || id == NOBODY
}

/// A name that can stand in a line without breaking it.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn passwd(host: &str) -> String {
    let mut lines = vec!["root:*:0:0:root:/root:/bin/sh".to_string()];
    let mut nobody = false;
    for line in host.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else { continue };
        let (Ok(uid), Ok(gid)) = (uid.parse::<u32>(), gid.parse::<u32>()) else { continue };
        if uid == 0 && name == "root" {
            // A root shell that is no program of the system would be missing inside.
            let known = ["/bin/bash", "/usr/bin/bash"].contains(&shell);
            lines[0] = format!("root:*:0:0:root:/root:{}", if known { shell } else { "/bin/sh" });
        } else if uid != 0 && system(uid) && system(gid) && plain(name) && name != "root" {
            nobody |= uid == NOBODY;
            lines.push(format!("{name}:*:{uid}:{gid}:{name}:{home}:{shell}"));
        }
    }
    if !nobody {
        lines.push(format!("nobody:*:{NOBODY}:{NOBODY}:nobody:/nonexistent:/usr/sbin/nologin"));
    }
    lines.join("\n") + "\n"
}

fn group(host: &str) -> String {
    let mut lines = vec!["root:*:0:".to_string()];
    let mut nobody = false;
    for line in host.lines() {
        let mut fields = line.split(':');
        let (Some(name), _, Some(gid)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let Ok(gid) = gid.parse::<u32>() else { continue };
        if gid != 0 && system(gid) && plain(name) {
            nobody |= gid == NOBODY;
            lines.push(format!("{name}:*:{gid}:"));
        }
    }
    if !nobody {
        lines.push(format!("nogroup:*:{NOBODY}:"));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_stay_out() {
        let host = "root:x:0:0:Jane Doe,,,:/root:/usr/bin/zsh\n\
            toor:x:0:0::/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
            jane:x:1000:1000:Jane Doe:/home/jane:/bin/bash\n+::::::\nbroken\n";
        assert_eq!(
            passwd(host),
            "root:*:0:0:root:/root:/bin/sh\ndaemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
             nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        );
        let host = "root:x:0:jane\nsudo:x:27:jane,bob\njane:x:1000:\nnogroup:x:65534:\n";
        assert_eq!(group(host), "root:*:0:\nsudo:*:27:\nnogroup:*:65534:\n");
    }
}
