//! The configuration files of tools, for where the tool itself is not there to be asked.

use super::sources::Answer;

/// `sources.list`, one source a line.
pub(super) fn apt_list(text: &str, answer: &mut Answer) {
    for line in text.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix("deb ").or_else(|| line.strip_prefix("deb-src ")) else {
            continue;
        };
        let rest = rest.trim_start();
        // Options in brackets stand before the address.
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
            None => rest,
        };
        apt_address(rest.split_whitespace().next().unwrap_or_default(), answer);
    }
}

/// `*.sources`: paragraphs of fields, as in RFC 822.
pub(super) fn apt_deb822(text: &str, answer: &mut Answer) {
    for paragraph in text.replace("\r\n", "\n").split("\n\n") {
        let (mut fields, mut field) = (Vec::<(String, String)>::new(), None);
        for line in paragraph.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with([' ', '\t']) {
                if let Some(at) = field {
                    let (_, value): &mut (String, String) = &mut fields[at];
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                field = Some(fields.len());
                fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let get = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, v)| v);
        let off = |value: &String| matches!(value.to_ascii_lowercase().as_str(), "no" | "false");
        if get("enabled").is_some_and(off) {
            continue;
        }
        let addresses = get("uris").map(String::as_str).unwrap_or_default();
        addresses.split_whitespace().for_each(|address| apt_address(address, answer));
    }
}

/// `apt-config dump`, and `apt.conf` where it is written the same way.
pub(super) fn apt_config(text: &str, answer: &mut Answer) {
    for line in text.lines().map(str::trim) {
        let Some((name, value)) = line.split_once(char::is_whitespace) else { continue };
        let value = value.trim().trim_end_matches(';').trim_matches('"');
        let name = name.to_ascii_lowercase();
        let Some(rest) = name.strip_prefix("acquire::") else { continue };
        let mut words = rest.split("::").skip(1);
        match words.next() {
            Some("proxy") if !value.is_empty() && !value.eq_ignore_ascii_case("direct") => {
                answer.add("apt", value);
            }
            Some("proxy-auto-detect" | "proxyautodetect") if !value.is_empty() => answer.note(
                format!("apt asks the program '{value}' for its proxy, which is not run for this"),
            ),
            _ => {}
        }
    }
}

/// One source. Lists of mirrors are files of their own.
pub(super) fn apt_address(address: &str, answer: &mut Answer) {
    let (method, _) = address.split_once(':').unwrap_or_default();
    match method {
        "mirror" | "mirror+http" | "mirror+https" => answer.note(format!(
            "apt takes its mirrors from the list at {address}; only the list's own host is allowed"
        )),
        _ => {}
    }
    answer.add("apt", address);
}

/// The value of a key in a section of an INI file, the last one.
fn ini<'a>(text: &'a str, sections: &[&str], key: &str) -> Vec<&'a str> {
    let (mut inside, mut found, mut open) = (false, Vec::new(), false);
    for line in text.lines() {
        let bare = line.trim();
        if bare.starts_with(['#', ';']) || bare.is_empty() {
            continue;
        }
        if let Some(section) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (inside, open) = (sections.contains(&section.trim()), false);
        } else if line.starts_with([' ', '\t']) {
            if open {
                found.push(bare);
            }
        } else if let Some((name, value)) = bare.split_once(['=', ':']) {
            open = inside && name.trim().replace('_', "-") == key;
            if open {
                found.clear();
                found.push(value.trim());
            }
        }
    }
    found
}

/// The keys of pip that say where it fetches from.
const PIP: [&str; 4] = ["index-url", "extra-index-url", "find-links", "proxy"];

/// `pip.conf`.
pub(super) fn pip_conf(text: &str, answer: &mut Answer) {
    for key in PIP {
        for value in ini(text, &["global", "install", "download", "wheel"], key) {
            value.split_whitespace().for_each(|url| answer.add("pip", url));
        }
    }
}

/// `pip config list`: `global.index-url='https://…'`, one setting a line.
pub(super) fn pip_list(text: &str, answer: &mut Answer) -> bool {
    let mut index = false;
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let key = name.rsplit('.').next().unwrap_or_default().replace('_', "-");
        if !PIP.contains(&key.as_str()) {
            continue;
        }
        index |= key == "index-url";
        // As Python prints text; more than one address is on lines of its own.
        let value = value.trim().trim_matches(['\'', '"']).replace("\\n", " ");
        value.split_whitespace().for_each(|url| answer.add("pip", url));
    }
    index
}

/// `.npmrc`.
pub(super) fn npmrc(text: &str, answer: &mut Answer) {
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let Some((name, value)) = line.split_once('=') else { continue };
        let name = name.trim();
        if matches!(name, "registry" | "proxy" | "https-proxy" | "http-proxy")
            || (name.starts_with('@') && name.ends_with(":registry"))
        {
            answer.add("npm", value.trim().trim_matches(['"', '\'']));
        }
    }
}

/// `npm config list --json`.
pub(super) fn npm_json(text: &str, answer: &mut Answer) -> bool {
    let Ok(serde_json::Value::Object(all)) = serde_json::from_str(text) else { return false };
    for (name, value) in &all {
        let wanted = matches!(name.as_str(), "registry" | "proxy" | "https-proxy" | "http-proxy")
            || (name.starts_with('@') && name.ends_with(":registry"));
        if let Some(url) = value.as_str().filter(|_| wanted) {
            answer.add("npm", url);
        }
    }
    true
}

/// `config.toml` of cargo: every registry, index and proxy in it.
pub(super) fn cargo_toml(text: &str, answer: &mut Answer) {
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.split_once('=') else { continue };
        let key = name.trim().rsplit('.').next().unwrap_or_default().trim_matches('"');
        if matches!(key, "registry" | "index" | "proxy") {
            let value = value.split(" #").next().unwrap_or_default();
            answer.add("cargo", value.trim().trim_matches(['"', '\'']));
        }
    }
}

/// `cargo config get --format json`.
pub(super) fn cargo_json(text: &str, answer: &mut Answer) {
    fn walk(value: &serde_json::Value, answer: &mut Answer) {
        let serde_json::Value::Object(map) = value else { return };
        for (name, value) in map {
            match value.as_str() {
                Some(url) if matches!(name.as_str(), "registry" | "index" | "proxy") => {
                    answer.add("cargo", url);
                }
                _ => walk(value, answer),
            }
        }
    }
    if let Ok(value) = serde_json::from_str(text) {
        walk(&value, answer);
    }
}

/// The file that `go env -w` writes, and `go.env` of the toolchain: `GOPROXY=…`, one a line.
pub(super) fn go_env(text: &str, answer: &mut Answer) {
    for line in text.lines() {
        match line.trim().split_once('=') {
            Some(("GOPROXY", value)) => go_proxy(value, answer),
            Some(("GOSUMDB", value)) => go_sumdb(value, answer),
            _ => {}
        }
    }
}

/// Proxies, separated by `,` or `|`.
pub(super) fn go_proxy(value: &str, answer: &mut Answer) {
    value.split([',', '|']).for_each(|proxy| answer.add("go", proxy));
}

/// `off`, the name of a host with or without its key, or that and a URL.
pub(super) fn go_sumdb(value: &str, answer: &mut Answer) {
    let mut words = value.split_whitespace();
    let host = words.next().unwrap_or_default().split('+').next().unwrap_or_default();
    match words.next() {
        Some(url) => answer.add("go", url),
        None if host == "off" || host.is_empty() => {}
        None => answer.add("go", &format!("https://{host}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(read: impl FnOnce(&mut Answer)) -> String {
        let mut answer = Answer::default();
        read(&mut answer);
        let rules: Vec<String> = answer.rules().iter().map(ToString::to_string).collect();
        [rules, answer.notes].concat().join("\n")
    }

    #[test]
    fn apt() {
        let list = "# deb http://off.test/ x main\ndeb http://one.test/debian stable main\n\
            deb-src [arch=amd64 signed-by=/x] https://two.test:8443/y ./\ndeb cdrom:[x]/ y main\n\
            deb mirror://three.test/mirrors.txt x main\ndeb mirror+file:/etc/apt/m x main\n";
        insta::assert_snapshot!(read(|answer| apt_list(list, answer)), @"
        one.test:80
        three.test:80
        two.test:8443
        apt takes its mirrors from the list at mirror://three.test/mirrors.txt; only the list's own host is allowed
        ");
        let deb822 = "Types: deb\nURIs: http://one.test/debian\n https://two.test/debian\n# x\nSuites: x\n\n\
            Enabled: no\nURIs: http://off.test/\n\nURIs:http://three.test\n";
        insta::assert_snapshot!(read(|answer| apt_deb822(deb822, answer)), @"
        one.test:80
        three.test:80
        two.test:443
        ");
        let config = "Acquire \"\";\nAcquire::http::Proxy \"http://proxy.test:3142/\";\n\
            Acquire::http::Proxy::local.test \"DIRECT\";\nAcquire::https::Proxy::x.test \"http://other.test:1/\";\n\
            Acquire::http::Proxy-Auto-Detect \"/usr/bin/find-proxy\";\nAcquire::http::Timeout \"30\";\n";
        insta::assert_snapshot!(read(|answer| apt_config(config, answer)), @"
        other.test:1
        proxy.test:3142
        apt asks the program '/usr/bin/find-proxy' for its proxy, which is not run for this
        ");
    }

    #[test]
    fn pip() {
        let conf = "[global]\nindex-url = https://a.test/simple\nindex_url = https://one.test/simple\n\
            extra-index-url =\n    https://two.test/simple\n    https://three.test:8443\n\
            trusted-host = no.test\n[list]\nindex-url = https://off.test\n# index-url = x\n";
        insta::assert_snapshot!(read(|answer| pip_conf(conf, answer)), @"
        one.test:443
        three.test:8443
        two.test:443
        ");
        let list = ":env:.find-links='/opt/wheels'\nglobal.index-url='https://one.test/simple'\n\
            global.extra-index-url='\\nhttps://two.test/simple\\nhttps://three.test'\n:env:.proxy='p.test:3128'\n";
        insta::assert_snapshot!(read(|answer| assert!(pip_list(list, answer))), @"
        one.test:443
        p.test:3128
        three.test:443
        two.test:443
        ");
        assert!(!pip_list("global.cert='/x'\n", &mut Answer::default()));
    }

    #[test]
    fn npm() {
        let rc = "registry=https://one.test/\n@scope:registry = \"https://two.test:8443/npm/\"\n\
            //two.test/:_authToken=x\n; registry=https://off.test\nhttps-proxy=http://p.test:3128\nproxy=null\n";
        insta::assert_snapshot!(read(|answer| npmrc(rc, answer)), @"
        one.test:443
        p.test:3128
        two.test:8443
        ");
        let json = r#"{"registry":"https://one.test/","@s:registry":"http://two.test","proxy":null,"noproxy":["x"],"homepage":"https://off.test"}"#;
        insta::assert_snapshot!(read(|answer| assert!(npm_json(json, answer))), @"
        one.test:443
        two.test:80
        ");
        assert!(!npm_json("npm ERR!", &mut Answer::default()));
    }

    #[test]
    fn cargo() {
        let toml = "[source.crates-io]\nreplace-with = \"m\"\n[source.m]\nregistry = \"sparse+https://one.test/i/\"\n\
            [registries]\nx.index = \"https://two.test/git\" # y\n[http]\nproxy = \"p.test:8080\"\n# registry = \"https://off.test\"\n";
        insta::assert_snapshot!(read(|answer| cargo_toml(toml, answer)), @"
        one.test:443
        p.test:8080
        two.test:443
        ");
        let json = r#"{"source":{"m":{"registry":"sparse+https://one.test/"}},"registry":{"default":"x"},"http":{"proxy":"http://p.test:1"}}"#;
        insta::assert_snapshot!(read(|answer| cargo_json(json, answer)), @"
        one.test:443
        p.test:1
        ");
    }

    #[test]
    fn go() {
        let env = "GOPROXY=https://one.test|https://two.test,direct\nGOSUMDB=sum.test+abc+def\nGOFLAGS=https://off.test\n";
        insta::assert_snapshot!(read(|answer| go_env(env, answer)), @"
        one.test:443
        sum.test:443
        two.test:443
        ");
        insta::assert_snapshot!(read(|answer| {
            go_sumdb("sum.test+key https://three.test/sumdb", answer);
            go_sumdb("off", answer);
            go_proxy("off", answer);
        }), @"three.test:443");
    }
}
