//! A machine file with all that it extends, to be kept or sent elsewhere as files of one folder.

use std::collections::BTreeMap;
use std::path::Path;

use toml_edit::Value;

use super::edit::Edit;
use super::error::{MachineError, Result};
use super::file::Machine;
use super::templates;

/// What the machine's own file is called in there.
const OWN: &str = "machine.toml";

/// A machine file, with `given` values of its variables written into it, and the files that it extends; and what
/// the machine is called.
///
/// # Errors
/// As [`Machine::load`].
pub fn bundle(
    path: &Path,
    given: &BTreeMap<String, String>,
) -> Result<(String, BTreeMap<String, String>)> {
    let machine = Machine::load(path, given)?;
    let (mut files, mut name, mut at) = (BTreeMap::new(), OWN.to_owned(), path.to_owned());
    loop {
        let mut edit = Edit::open(&at)?;
        if files.is_empty() {
            for (variable, value) in given {
                edit.put(&format!("variables.{variable}"), Value::from(value.as_str()))?;
            }
        }
        let word = edit.text_of("extends").filter(|word| templates::find(word).is_none());
        let next = format!("{}.toml", files.len() + 1);
        if word.is_some() {
            edit.put("extends", Value::from(format!("./{next}")))?;
        }
        files.insert(name, edit.text());
        match word {
            Some(word) => {
                let next = at.parent().unwrap_or(Path::new("")).join(word);
                at = next.canonicalize().map_err(|error| MachineError::io(&next, &error))?;
            }
            None => return Ok((machine.name, files)),
        }
        name = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_extends_comes_along() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("web.toml", "# mine\nextends = \"site/base.toml\"\nhostname = \"{{who}}\"\n");
        write("site/base.toml", "extends = \"../all.toml\"\n[limits]\ncpu = 2\n");
        write(
            "all.toml",
            "extends = \"agent\"\n[variables]\nwho = { about = \"x\", default = \"a\" }\n",
        );
        let given = [("who".to_owned(), "b".to_owned())].into();
        let (name, files) = bundle(&folder.path().join("web.toml"), &given).unwrap();
        assert_eq!(name, "web");
        assert_eq!(files.keys().collect::<Vec<_>>(), ["1.toml", "2.toml", OWN]);
        assert!(files[OWN].starts_with("# mine\nextends = \"./1.toml\"\n"), "{}", files[OWN]);
        let kept = folder.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        for (name, text) in &files {
            std::fs::write(kept.join(name), text).unwrap();
        }
        let again = Machine::load(&kept.join(OWN), &BTreeMap::new()).unwrap();
        assert_eq!((again.hostname.as_deref(), again.limits.cpu), (Some("b"), Some(2.0)));
        assert_eq!(again.extends, ["./1.toml", "./2.toml", "agent"]);
    }
}
