//! The workflows that people start from, as they are.

use crate::place::Place;

/// What belongs to this machine's C compiler, put into the root file system of an image.
const COMPILER: &str = r#"
set -eo pipefail
mkdir cc && tar -x --numeric-owner -C cc -f "$1"
apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances gcc libc6-dev | grep '^[a-z]' | grep -vx 'libc6.*:.*\|libc6\|libgcc-s1\|perl.*' | sort -u |
    xargs dpkg-query -W -f '${binary:Package} ${db:Status-Status}\n' 2>/dev/null | sed -n 's/ installed$//p' |
    xargs dpkg -L | sort -u | grep '^/usr/\(bin\|lib\|include\)/\|^/lib' |
    while read -r f; do [ -d "$f" ] || printf '%s/%s\n' "$(readlink -f "${f%/*}")" "${f##*/}"; done | sort -u |
    tar -c --no-recursion -P -T - --ignore-failed-read | tar -x -P --transform "s|^/|$PWD/cc/|" --keep-directory-symlink
tar -c --numeric-owner -C cc -f cc.tar .
rm -rf cc
"#;

/// An image with a C compiler; none where this machine's does not run in it.
fn image(place: &Place) -> Option<String> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.contains("VERSION_CODENAME=bookworm") {
        let why = "this machine is not of the image's release, its compiler does not run there";
        assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "{why}");
        println!("skipped: {why}");
        return None;
    }
    let folder = place.folder("compiler");
    place.write("compiler.sh", COMPILER);
    place.shell(&format!("here=$PWD; cd {folder} && bash $here/compiler.sh {}", place.image()));
    Some(format!("image={folder}/cc.tar"))
}

#[test]
fn the_scripts_run_as_they_are() {
    let Some(place) = Place::alone() else { return };
    let Some(image) = image(&place) else { return };
    place.shell(&format!("cp -r {}/scripts .", env!("CARGO_MANIFEST_DIR")));
    let run = |script: &str, more: &[&str]| {
        let args = ["run", script, "--set", &image];
        place.call(&args.iter().chain(more).copied().collect::<Vec<_>>())
    };
    let said = run("scripts/build_base.rhai", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let hello = "hello from a program that was compiled in a clone";
    assert!(said.stdout.contains(hello), "{said:?}");
    // The same steps from the other language.
    let said = run("scripts/build_base.lua", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("3 of 3 steps were cached"), "{said:?}");
    let said = run("scripts/test_matrix.rhai", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(format!("{}{}", said.stdout, said.stderr).contains("12 passed"), "{said:?}");
    let broken = ["--set", "broken=true", "--filter", "sanitizer=none", "--on-fail", "clean"];
    let said = run("scripts/test_matrix.lua", &broken);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(format!("{}{}", said.stdout, said.stderr).contains("3 passed"), "{said:?}");
    let listed = place.ok(&["list"]);
    let cells = listed.lines().skip(1).filter(|line| !line.starts_with("base-"));
    assert_eq!(cells.collect::<Vec<_>>(), [""; 0], "cells are left");
    place.ok(&["base", "prune", "--keep", "0", "--yes"]);
}
