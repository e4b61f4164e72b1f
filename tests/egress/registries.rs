//! What a guest says about where its tools fetch from, before and after something ran in it.

use std::collections::BTreeMap;

use sandscript::egress::{Asked, Asker, Catalog, Origin, Resolved};
use sandscript::sandbox::{Backend, Cancel, CloneSpec, Reader, SnapshotSpec, Spec, WriteOptions};

use crate::Test;
use crate::rig::{Rig, Sandbox};

pub const TESTS: &[Test] = &[("attack_edit_of_what_tools_are_set_to", edit)];

const PIP: &str = "/etc/pip.conf";

fn write(rig: &Rig, name: &str, text: &'static str) {
    let options = WriteOptions { parents: true, ..WriteOptions::default() };
    let content: Reader = Box::new(text.as_bytes());
    rig.wait(rig.backend.write(name, PIP, content, &options, &Cancel::new())).unwrap();
}

fn resolve(rig: &Rig, asked: &Asked, origin: &Origin) -> Resolved {
    let cancel = Cancel::new();
    let (backend, env) = (&rig.backend as &dyn Backend, BTreeMap::new());
    let place = "local".to_owned();
    let asker = Asker { backend, cancel: &cancel, owner: None, env, user: None, dry: false, place };
    rig.wait(Catalog::default().resolve(asked, &asker, origin)).unwrap()
}

/// The guest names another index in the files that are asked: in none of the ways in which a policy is
/// set does it get there.
fn edit(rig: &Rig) {
    let base = Sandbox { rig, name: rig.name() };
    let mut spec = Spec::new(&base.name);
    spec.labels = [("sandscript.kind".to_owned(), "base".to_owned())].into();
    rig.wait(rig.backend.create(&spec, &Cancel::new())).unwrap();
    write(rig, &base.name, "[global]\nindex-url = http://allowed.test/simple\n");
    let label = SnapshotSpec::new("done");
    rig.wait(rig.backend.snapshot(&base.name, &label, &Cancel::new())).unwrap();

    let registries = Asked::word("registries").unwrap();
    let origin = Origin::Base { sandbox: base.name.clone(), label: "done".into() };
    let found = resolve(rig, &registries, &origin);
    let texts: Vec<String> = found.policy.rules().map(ToString::to_string).collect();
    assert!(texts.contains(&"allowed.test:80".to_owned()), "{texts:?}");
    // As a cell gets it.
    let guest = rig.sandbox_of(found.policy.clone());
    let held = |guest: &Sandbox<'_>| {
        guest.reaches(&["get", "203.0.113.10:80", "allowed.test"], "203.0.113.10");
        guest.is_refused(&["get", "203.0.113.20:80", "denied.test"]);
    };
    held(&guest);
    write(rig, &guest.name, "[global]\nindex-url = http://denied.test/simple\n");
    held(&guest);
    guest.stop();
    guest.start();
    held(&guest);
    let own = Origin::Sandbox(guest.name.clone());
    guest.set(&resolve(rig, &registries, &own).policy);
    held(&guest);
    // Also where it is asked for a preset that it has no answer for.
    let clone = Sandbox { rig, name: rig.name() };
    let spec = CloneSpec::of("done", &clone.name);
    rig.wait(Backend::clone(&rig.backend, &base.name, &spec, &Cancel::new())).unwrap();
    write(rig, &clone.name, "[global]\nindex-url = http://denied.test/simple\n");
    let found = resolve(rig, &Asked::word("agent").unwrap(), &Origin::Sandbox(clone.name.clone()));
    let texts: Vec<String> = found.policy.rules().map(ToString::to_string).collect();
    assert!(texts.contains(&"allowed.test:80".to_owned()), "{texts:?}");
    assert!(!texts.iter().any(|rule| rule.contains("denied")), "{texts:?}");
}
