//! The workflows that people start from, as they are.

use crate::compiler::{self, FILES};
use crate::place::Place;

/// An image with a C compiler; none where this machine's does not run in it.
fn image(place: &Place) -> Option<String> {
    if !compiler::fits() {
        return None;
    }
    let folder = place.folder("compiler");
    let script = format!(
        "set -eo pipefail; mkdir cc; tar -x --numeric-owner -C cc -f \"$1\"\n{FILES} |\n\
         tar -x -P --transform \"s|^/|$PWD/cc/|\" --keep-directory-symlink\n\
         tar -c --numeric-owner -C cc -f cc.tar .; rm -rf cc\n"
    );
    place.write("compiler.sh", &script);
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
