//! Machines of images from a registry, as far as these have an init.

use crate::place::Place;

/// A registry as plain files on loopback, with a server that knows nothing else.
fn publish(place: &Place, image: &str) -> String {
    let folder = place.folder("registry");
    place.shell(&format!(
        r#"ip link set lo up
        cd {folder} && mkdir -p v2/a/manifests v2/a/blobs over/etc over/opt small/bin
        ln -s {image} whole.tar
        touch over/etc/.wh.issue; echo over > over/opt/over; tar -C over -cf over.tar .
        printf '#!/bin/true\n' > small/bin/sh; tar -C small -cf small.tar .
        layer() {{
            set -- "$1" "$(sha256sum < "$1.tar" | cut -c1-64)" "$(stat -L -c %s "$1.tar")"
            ln -sf "{folder}/$1.tar" "v2/a/blobs/sha256:$2"
            printf '{{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:%s", "size": %s}}' "$2" "$3"
        }}
        printf '{{"schemaVersion": 2, "layers": [%s, %s]}}' "$(layer whole)" "$(layer over)" > v2/a/manifests/whole
        printf '{{"schemaVersion": 2, "layers": [%s]}}' "$(layer small)" > v2/a/manifests/small
        for tag in whole small; do
            cp v2/a/manifests/$tag "v2/a/manifests/sha256:$(sha256sum < v2/a/manifests/$tag | cut -c1-64)"
        done
        python3 -m http.server --bind 127.0.0.1 5007 >/dev/null 2>&1 & echo $! > pid"#
    ));
    place.until("the registry answers", || {
        place.holds("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 5007))'")
    });
    folder
}

#[test]
fn an_image_of_a_registry_is_a_machine_when_it_has_an_init() {
    let Some(place) = Place::alone() else { return };
    let folder = publish(&place, &place.image());
    place.write("whole.toml", "image = { oci = \"127.0.0.1:5007/a:whole\" }\n");
    place.ok(&["machine", "create", "whole.toml"]);
    let said = place.exec("whole", "cat /opt/over; test -e /etc/issue || echo without");
    assert_eq!(said, "over\nwithout\n");
    place.ok(&["create", "plain", "--image", "oci:127.0.0.1:5007/a:whole", "--bare"]);
    place.write("small.toml", "image = \"oci:127.0.0.1:5007/a:small\"\n");
    let said = place.call(&["machine", "create", "small.toml"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("has no init system"), "{said:?}");
    assert!(said.stderr.contains("those of registries seldom have one"), "{said:?}");
    // Nothing is left of what was refused.
    let names = place.ok(&["list", "--format", "json"]);
    assert!(!names.contains("small"), "{names}");
    place.shell(&format!("kill $(cat {folder}/pid)"));
}
