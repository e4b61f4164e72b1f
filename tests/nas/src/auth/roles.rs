//! Which role allows what.

/// Whether somebody with `roles` may do what asks for `wanted`.
pub fn allows(roles: &[String], wanted: &str) -> bool {
    roles.iter().any(|role| covers(role, wanted))
}

fn covers(role: &str, wanted: &str) -> bool {
    if role == "FULL_ADMIN" || role == wanted {
        return true;
    }
    let read = wanted.ends_with("_READ");
    match role {
        "READONLY_ADMIN" => read,
        "REPLICATION_ADMIN" => ["SNAPSHOT_", "DATASET_", "REPLICATION_", "ZFS_RESOURCE_READ"]
            .iter()
            .any(|p| wanted.starts_with(p)),
        // To write is to read, and to write files is to write their attributes.
        "FILESYSTEM_DATA_WRITE" => wanted == "FILESYSTEM_DATA_READ",
        _ => match (role.strip_suffix("_WRITE"), wanted.strip_suffix("_READ")) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
    }
}
