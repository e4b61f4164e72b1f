//! Who a name or a number is, by the guest's own `/etc/passwd` and `/etc/group`.

use super::tree::{Data, Tree};
use crate::sandbox::{Error, Kind, Result};

/// A user that a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
    pub name: String,
    pub home: String,
}

fn rows(tree: &Tree, path: &str) -> Vec<Vec<String>> {
    let Ok((_, node)) = tree.find("/", path, true) else { return Vec::new() };
    let Data::File(bytes) = &node.data else { return Vec::new() };
    String::from_utf8_lossy(bytes)
        .lines()
        .map(|line| line.split(':').map(str::to_owned).collect())
        .collect()
}

fn field(row: &[String], index: usize) -> &str {
    row.get(index).map_or("", String::as_str)
}

/// `user` or `user:group`, names or numbers.
pub(super) fn find(tree: &Tree, text: &str) -> Result<User> {
    let unknown = || Error::not_found(Kind::User, text);
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number = user.parse::<u32>().ok();
    let row = rows(tree, "/etc/passwd").into_iter().find(|row| match number {
        Some(uid) => field(row, 2).parse() == Ok(uid),
        None => field(row, 0) == user,
    });
    let mut found = match (row, number) {
        (Some(row), _) => User {
            uid: field(&row, 2).parse().map_err(|_| unknown())?,
            gid: field(&row, 3).parse().map_err(|_| unknown())?,
            name: field(&row, 0).to_owned(),
            home: field(&row, 5).to_owned(),
        },
        (None, Some(uid)) => User { uid, gid: uid, name: uid.to_string(), home: "/".to_owned() },
        (None, None) => return Err(unknown()),
    };
    if let Some(group) = group {
        found.gid = match group.parse() {
            Ok(gid) => gid,
            Err(_) => rows(tree, "/etc/group")
                .iter()
                .find(|row| field(row, 0) == group)
                .and_then(|row| field(row, 2).parse().ok())
                .ok_or_else(unknown)?,
        };
    }
    Ok(found)
}
