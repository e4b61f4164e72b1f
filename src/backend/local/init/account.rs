//! Users and groups as the guest's own `/etc/passwd` and `/etc/group` name them.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use crate::backend::local::protocol::{Refusal, Reply};

/// Who a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// Looks up `user` or `user:group`, names or numbers. A number needs no entry.
pub fn look_up(user: &str) -> Result<Account, Reply> {
    resolve(user, &read("/etc/passwd"), &read("/etc/group"))
}

fn resolve(user: &str, passwd: &str, groups: &str) -> Result<Account, Reply> {
    let missing =
        || Reply::Refused { code: Refusal::NoUser, what: user.to_owned(), message: String::new() };
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let number = name.parse::<u32>().ok();
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 7
            && (fields[0] == name || number.is_some_and(|uid| fields[2].parse() == Ok(uid)))
    });
    let mut account = match (entry, number) {
        (Some(fields), _) => Account {
            name: fields[0].into(),
            uid: fields[2].parse().map_err(|_| missing())?,
            gid: fields[3].parse().map_err(|_| missing())?,
            groups: Vec::new(),
            home: fields[5].into(),
            shell: fields[6].into(),
        },
        (None, Some(0)) => Account { home: "/root".into(), name: "root".into(), ..nobody(0) },
        (None, Some(uid)) => nobody(uid),
        (None, None) if name == "root" => {
            Account { home: "/root".into(), name: "root".into(), ..nobody(0) }
        }
        (None, None) => return Err(missing()),
    };
    let listed: Vec<Vec<&str>> = groups
        .lines()
        .map(|line| line.split(':').collect())
        .filter(|f: &Vec<_>| f.len() >= 4)
        .collect();
    if let Some(group) = group {
        account.gid = match (group.parse(), listed.iter().find(|fields| fields[0] == group)) {
            (Ok(gid), _) => gid,
            (_, Some(fields)) => fields[2].parse().map_err(|_| missing())?,
            _ => return Err(missing()),
        };
    } else {
        account.groups = listed
            .iter()
            .filter(|fields| fields[3].split(',').any(|member| member == account.name))
            .filter_map(|fields| fields[2].parse().ok())
            .collect();
    }
    Ok(account)
}

fn nobody(uid: u32) -> Account {
    Account {
        name: uid.to_string(),
        uid,
        gid: uid,
        groups: Vec::new(),
        home: "/".into(),
        shell: "/bin/sh".into(),
    }
}

/// A file of the guest's choosing: only a regular one, and no more than a megabyte of it.
fn read(path: &str) -> String {
    let mut text = Vec::with_capacity(8 << 10);
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        let _ = file.take(1 << 20).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nann:x:1000:100::/home/ann:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:ann,bob\nvideo:x:44:ann\n";

    #[test]
    fn names_numbers_and_groups() {
        let ann = resolve("ann", PASSWD, GROUP).unwrap();
        assert_eq!((ann.uid, ann.gid, ann.groups), (1000, 100, vec![10, 44]));
        let same = resolve("1000", PASSWD, GROUP).unwrap();
        assert_eq!((same.name.as_str(), same.home.as_str()), ("ann", "/home/ann"));
        let with_group = resolve("ann:wheel", PASSWD, GROUP).unwrap();
        assert_eq!((with_group.gid, with_group.groups), (10, vec![]));
        assert_eq!(resolve("5:6", PASSWD, GROUP).unwrap().gid, 6);
        assert_eq!(resolve("root", "", "").unwrap().home, "/root");
        assert!(resolve("eve", PASSWD, GROUP).is_err());
        assert!(resolve("ann:eve", PASSWD, GROUP).is_err());
    }
}
