//! The README names every method.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use nas_sim::Release;

use crate::rig::{small, test};

pub fn tests() -> Vec<Trial> {
    vec![test("readme::names_every_method", || Box::pin(names()))]
}

/// What one piece of code in the table stands for: `a.b c d` is `a.b`, `a.c` and `a.d`; `a.*` is all
/// below `a`.
fn expand(code: &str, into: &mut BTreeSet<String>) {
    let mut words = code.split(' ');
    let first = words.next().unwrap_or_default();
    let space = first.rsplit_once('.').map_or("", |(space, _)| space);
    into.insert(first.to_owned());
    into.extend(words.map(|w| format!("{space}.{w}")));
}

async fn names() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let mut named = BTreeSet::new();
    for row in readme.lines().filter(|l| l.starts_with("| `") || l.starts_with("| event")) {
        let methods = row.split('|').nth(1).unwrap_or_default();
        methods.split('`').skip(1).step_by(2).for_each(|code| expand(code, &mut named));
    }
    let covers = |name: &str| {
        named.iter().any(|n| n == name || n.strip_suffix('*').is_some_and(|p| name.starts_with(p)))
    };
    for release in Release::ALL {
        let set = small(release, |_| {}).await;
        let methods = set.sim.methods();
        let missed: Vec<_> = methods.iter().filter(|m| !covers(m)).collect();
        assert!(missed.is_empty(), "{release:?}: {missed:?}");
    }
}
