//! Changes to a machine file that leave everything else in it as it is: comments, order, spaces, and
//! keys that nobody here knows.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, TableLike, Value};

use super::error::{MachineError, Place, Result};
use super::render::stamp;

/// A file that is being changed.
#[derive(Debug)]
pub struct Edit {
    path: PathBuf,
    before: String,
    document: DocumentMut,
}

impl Edit {
    /// Reads a file.
    ///
    /// # Errors
    /// `Io`; `Invalid` where it is no TOML.
    pub fn open(path: &Path) -> Result<Edit> {
        let before = super::read_text(path)?;
        let name = path.display().to_string();
        let document = before.parse::<DocumentMut>().map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let place = Place::at(&name, &before, offset);
            MachineError::invalid(place, error.message().trim().replace('\n', ", "))
        })?;
        Ok(Edit { path: path.to_owned(), before, document })
    }

    /// The file as it would be written.
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// The text that a key of the file itself has.
    pub fn text_of(&self, key: &str) -> Option<String> {
        self.document.get(key).and_then(Item::as_str).map(str::to_owned)
    }

    /// Gives a key, such as `limits.memory`, a value: TOML where it is that, else a text.
    ///
    /// # Errors
    /// `Invalid` for a key that is not below a table.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let parsed = value.parse::<Value>().unwrap_or_else(|_| Value::from(value));
        self.put(key, parsed)
    }

    /// The same with a value.
    pub fn put(&mut self, key: &str, mut value: Value) -> Result<()> {
        let name = self.path.display().to_string();
        let (table, last) = descend(self.document.as_table_mut(), key, true)
            .and_then(|found| found.ok_or(key.to_owned()))
            .map_err(|part| not_a_table(&name, &part))?;
        match table.get_mut(&last) {
            // What stands around the value stays: spaces, and a comment behind it.
            Some(Item::Value(there)) => {
                *value.decor_mut() = there.decor().clone();
                *there = value;
            }
            Some(item) => *item = Item::Value(value),
            None => {
                table.insert(&last, Item::Value(value));
            }
        }
        Ok(())
    }

    /// Takes a key away. Says whether it was there.
    ///
    /// # Errors
    /// `Invalid` for a key that is not below a table.
    pub fn unset(&mut self, key: &str) -> Result<bool> {
        let name = self.path.display().to_string();
        let found = descend(self.document.as_table_mut(), key, false)
            .map_err(|part| not_a_table(&name, &part))?;
        Ok(found.is_some_and(|(table, last)| table.remove(&last).is_some()))
    }

    /// Writes the file as a whole, with the permissions that it had.
    ///
    /// # Errors
    /// `Changed` where it is not as it was read; `Io`.
    pub fn save(self) -> Result<()> {
        let now =
            std::fs::read(&self.path).map_err(|error| MachineError::io(&self.path, &error))?;
        if now != self.before.as_bytes() {
            return Err(MachineError::Changed { path: self.path });
        }
        // A link stays one, and what it points at is replaced.
        let path =
            self.path.canonicalize().map_err(|error| MachineError::io(&self.path, &error))?;
        let meta = std::fs::metadata(&path).map_err(|error| MachineError::io(&path, &error))?;
        stamp::replace(&path, &self.text(), meta.permissions().mode() & 0o7777)
    }
}

fn not_a_table(file: &str, part: &str) -> MachineError {
    MachineError::invalid(Place::file(file), format!("'{part}' is not a table"))
        .or_hint("lists are given as a whole: nics=[{ bridge = \"br0\" }]")
}

/// The table that holds a key, and the key's last part; an error is what is in the way.
fn descend<'a>(
    root: &'a mut dyn TableLike,
    key: &str,
    make: bool,
) -> Result<Option<(&'a mut dyn TableLike, String)>, String> {
    let parts: Vec<String> = toml_edit::Key::parse(key)
        .map_err(|_| key.to_owned())?
        .iter()
        .map(|key| key.get().to_owned())
        .collect();
    let Some((last, above)) = parts.split_last() else { return Err(key.to_owned()) };
    let mut table = root;
    for part in above {
        if table.get(part).is_none() {
            if !make {
                return Ok(None);
            }
            let mut new = toml_edit::Table::new();
            new.set_implicit(false);
            table.insert(part, Item::Table(new));
        }
        let inner = table.get_mut(part).and_then(Item::as_table_like_mut);
        table = inner.ok_or_else(|| part.clone())?;
    }
    Ok(Some((table, last.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# My web server.
image = \"debian/12\" # stable

[limits]
cpu   = 2      # enough
unknown = { kept = true }

[nspawn.Exec]
Timezone = \"off\"
";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn everything_else_stays() {
        let (_folder, path) = file(FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let mut edit = Edit::open(&path).unwrap();
        edit.set("limits.cpu", "4").unwrap();
        edit.set("limits.memory", "2GiB").unwrap();
        edit.set("users.ownership", "chown").unwrap();
        assert!(edit.unset("nspawn.Exec.Timezone").unwrap());
        assert!(!edit.unset("nothing.here").unwrap());
        edit.save().unwrap();
        insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @r#"
        # My web server.
        image = "debian/12" # stable

        [limits]
        cpu   = 4      # enough
        unknown = { kept = true }
        memory = "2GiB"

        [nspawn.Exec]

        [users]
        ownership = "chown"
        "#);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn what_somebody_changed_meanwhile_stays() {
        let (_folder, path) = file(FILE);
        let mut edit = Edit::open(&path).unwrap();
        edit.set("limits.cpu", "4").unwrap();
        std::fs::write(&path, "image = \"alpine/3.22\"\n").unwrap();
        let error = edit.save().unwrap_err();
        assert!(matches!(error, MachineError::Changed { .. }));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "image = \"alpine/3.22\"\n");
    }

    #[test]
    fn a_key_below_a_value_says_so() {
        let (_folder, path) = file(FILE);
        let mut edit = Edit::open(&path).unwrap();
        let error = edit.set("image.alias", "x").unwrap_err();
        assert!(error.to_string().ends_with("'image' is not a table"), "{error}");
        assert!(Edit::open(&file("a = \n").1).is_err());
    }
}
