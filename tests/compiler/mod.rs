//! This machine's C compiler, for images of the same release.

/// Prints which files it is, as a part of a shell's line.
pub const FILES: &str = r#"apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances gcc libc6-dev | grep '^[a-z]' | grep -vx 'libc6.*:.*\|libc6\|libgcc-s1\|perl.*' | sort -u |
    xargs dpkg-query -W -f '${binary:Package} ${db:Status-Status}\n' 2>/dev/null | sed -n 's/ installed$//p' |
    xargs dpkg -L | sort -u | grep '^/usr/\(bin\|lib\|include\)/\|^/lib' |
    while read -r f; do [ -d "$f" ] || printf '%s/%s\n' "$(readlink -f "${f%/*}")" "${f##*/}"; done | sort -u |
    tar -c --no-recursion -P -T - --ignore-failed-read"#;

/// Whether it runs in the image of the tests; where it does not that is told, and is a failure in CI.
pub fn fits() -> bool {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let fits = release.contains("VERSION_CODENAME=bookworm");
    if !fits {
        let why = "this machine is not of the image's release, its compiler does not run there";
        assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{why}");
        println!("skip: {why}");
    }
    fits
}
