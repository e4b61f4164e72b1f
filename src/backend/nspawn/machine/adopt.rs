//! A `.nspawn` file that somebody else wrote or changed, taken over into the machine file.

use std::path::{Path, PathBuf};

use toml_edit::{Array, Value};

use super::edit::Edit;
use super::error::{MachineError, Result};
use super::file::Machine;
use super::import;
use super::native::{Form, Setting};
use super::render::{Plan, stamp};
use super::variables::escape;

/// A file that is to be taken over: nothing is changed before [`Adoption::finish`].
#[derive(Debug)]
pub struct Adoption {
    /// Keys of the machine file that are new.
    pub taken: Vec<String>,
    edit: Edit,
    there: PathBuf,
    theirs: String,
}

impl Adoption {
    /// Looks at what the `.nspawn` file of a plan says otherwise than the machine, whose file is at
    /// `path`. Nothing where it is ours.
    ///
    /// # Errors
    /// `Invalid` for a file that can't be read as one; `Io`.
    pub fn read(path: &Path, machine: &Machine, plan: &Plan) -> Result<Option<Adoption>> {
        let there = plan.nspawn.path.clone();
        let theirs = match std::fs::read_to_string(&there) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(MachineError::io(there, &error)),
        };
        if stamp::whose(&theirs) == stamp::Whose::Ours {
            return Ok(None);
        }
        let mut edit = Edit::open(path)?;
        let mut taken = Vec::new();
        for setting in import::nspawn::read(&there.display().to_string(), &theirs)?.iter() {
            let ours = plan.settings.get(&setting.section, &setting.key);
            let passed = machine.nspawn.get(&setting.section, &setting.key);
            if let Some(value) = said(setting, ours, passed) {
                let key = format!("nspawn.{}.{}", setting.section, setting.key);
                edit.put(&key, value)?;
                taken.push(key);
            }
        }
        Ok(Some(Adoption { taken, edit, there, theirs }))
    }

    /// The machine file as it is going to be.
    pub fn text(&self) -> String {
        self.edit.text()
    }

    /// Writes the machine file and what is rendered from it, the `.nspawn` file last: theirs gets a
    /// name that systemd does not read, and there is one at every time. Says that name, and what it
    /// wrote.
    ///
    /// # Errors
    /// `Clobber` before anything is written; `Changed`; `Io`.
    pub fn finish(self, plan: &Plan) -> Result<(PathBuf, Vec<PathBuf>)> {
        let Adoption { taken, edit, there, theirs } = self;
        let others = || plan.all().filter(|file| file.path != there);
        for file in others() {
            stamp::check(&file.path)?;
        }
        if !taken.is_empty() {
            edit.save()?;
        }
        let mut written = plan.put(others())?;
        let now = std::fs::read(&there).map_err(|error| MachineError::io(&there, &error))?;
        if now != theirs.as_bytes() {
            return Err(MachineError::Changed { path: there });
        }
        let aside = aside(&there)?;
        let new = &plan.nspawn;
        if let Err(error) = stamp::replace(&new.path, &new.text, new.mode) {
            let _ = std::fs::remove_file(&aside);
            return Err(error);
        }
        written.push(new.path.clone());
        Ok((aside, written))
    }
}

/// What the machine file has to say so that a setting of theirs holds; `ours` is what holds now, and
/// `passed` what of it the machine file passes through, which the new value stands for, too.
fn said(theirs: &Setting, ours: &[String], passed: &[String]) -> Option<Value> {
    let form = theirs.known().map(|known| known.form);
    let text = |one: &String| escape(one);
    if form == Some(Form::Rest) {
        let all = || Value::Array(theirs.values.iter().map(text).collect::<Array>());
        return (theirs.values != ours).then(all);
    }
    let flat = |values: &[String]| -> Vec<String> {
        let words = values.iter().flat_map(|one| one.split([' ', ',']));
        match form {
            Some(Form::Commas) => {
                words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
            }
            _ => values.to_vec(),
        }
    };
    let ours = flat(ours);
    let mut new = flat(&theirs.values);
    new.retain(|one| !ours.contains(one));
    if new.is_empty() {
        return None;
    }
    let kept = if theirs.is_list() { flat(passed) } else { Vec::new() };
    let all: Vec<String> = kept.iter().chain(&new).map(text).collect();
    Some(match all.as_slice() {
        [one] => Value::from(one.as_str()),
        all => Value::Array(all.iter().map(String::as_str).collect::<Array>()),
    })
}

/// Gives a file a second name beside it that nothing has yet.
fn aside(there: &Path) -> Result<PathBuf> {
    let mut extension = String::from("nspawn.adopted");
    let mut number = 1;
    loop {
        let path = there.with_extension(&extension);
        match std::fs::hard_link(there, &path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                number += 1;
                extension = format!("nspawn.adopted.{number}");
            }
            Err(error) => return Err(MachineError::io(path, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::render::Context;
    use super::*;

    struct Rig {
        folder: tempfile::TempDir,
        path: PathBuf,
    }

    impl Rig {
        fn new(text: &str) -> Rig {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("web.toml");
            std::fs::write(&path, text).unwrap();
            Rig { folder, path }
        }

        fn plan_of(&self, machine: &Machine) -> Plan {
            let plan = Plan::new(machine, &Context::usual(machine), "web.toml").unwrap();
            plan.below(&self.folder.path().join("out"))
        }

        fn machine(&self) -> Machine {
            Machine::load(&self.path, &BTreeMap::new()).unwrap()
        }

        fn plan(&self) -> Plan {
            self.plan_of(&self.machine())
        }

        fn read(&self) -> Option<Adoption> {
            Adoption::read(&self.path, &self.machine(), &self.plan()).unwrap()
        }

        /// As `render --adopt` does it.
        fn adopt(&self) -> Result<(PathBuf, Vec<PathBuf>)> {
            let adoption = self.read().unwrap();
            let after = Machine::read_as(&self.path, &adoption.text(), &BTreeMap::new())?;
            adoption.finish(&self.plan_of(&after))
        }
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_a_gui_changed_is_taken_over_when_that_is_asked_for() {
        let rig = Rig::new("# mine\nimage = \"debian/12\" # stable\nnics = [{ veth = true }]\n");
        let plan = rig.plan();
        assert_eq!(plan.write().unwrap().len(), 2);
        assert!(plan.write().unwrap().is_empty());
        assert!(rig.read().is_none());
        let theirs =
            plan.nspawn.text.replace("[Files]\n", "[Files]\nBind=/tank/x:/x\n") + "Port=tcp:80\n";
        std::fs::write(&plan.nspawn.path, &theirs).unwrap();
        assert!(matches!(plan.write().unwrap_err(), MachineError::Clobber { .. }));
        assert_eq!(text(&plan.nspawn.path), theirs);
        assert_eq!(rig.read().unwrap().taken, ["nspawn.Files.Bind", "nspawn.Network.Port"]);
        let (aside, written) = rig.adopt().unwrap();
        assert_eq!(aside, plan.nspawn.path.with_extension("nspawn.adopted"));
        assert_eq!(written, [plan.nspawn.path.as_path()]);
        insta::assert_snapshot!(text(&rig.path), @r#"
        # mine
        image = "debian/12" # stable
        nics = [{ veth = true }]

        [nspawn]

        [nspawn.Files]
        Bind = "/tank/x:/x"

        [nspawn.Network]
        Port = "tcp:80"
        "#);
        let now = text(&plan.nspawn.path);
        assert!(now.contains("\nBind=/tank/x:/x\n") && now.contains("\nPort=tcp:80\n"));
        assert_eq!(text(&aside), theirs);
        assert!(rig.plan().write().unwrap().is_empty());
        // A second time nothing of the first is lost: neither what was put aside nor what was taken.
        let again = now.replace("[Network]\n", "[Network]\nPort=udp:53\n");
        std::fs::write(&plan.nspawn.path, &again).unwrap();
        let (second, _) = rig.adopt().unwrap();
        assert_eq!(second, plan.nspawn.path.with_extension("nspawn.adopted.2"));
        assert_eq!((text(&aside), text(&second)), (theirs, again));
        assert!(text(&rig.path).contains("Port = [\"tcp:80\", \"udp:53\"]"), "{}", text(&rig.path));
    }

    #[test]
    fn what_fails_leaves_their_file_where_it_is() {
        let rig = Rig::new("image = \"debian/12\"\nnics = [{ veth = true }]\n");
        let plan = rig.plan();
        plan.write().unwrap();
        let theirs = plan.nspawn.text.clone() + "Port=tcp:80\n";
        let before = text(&rig.path);
        let stays = |theirs: &str| {
            assert_eq!(
                (text(&plan.nspawn.path).as_str(), text(&rig.path)),
                (theirs, before.clone())
            );
            assert!(!plan.nspawn.path.with_extension("nspawn.adopted").exists());
        };
        // The drop-in is somebody else's, too.
        std::fs::write(&plan.nspawn.path, &theirs).unwrap();
        std::fs::write(&plan.dropin.path, "[Service]\n").unwrap();
        assert!(matches!(rig.adopt().unwrap_err(), MachineError::Clobber { .. }));
        stays(&theirs);
        std::fs::remove_file(&plan.dropin.path).unwrap();
        // The machine would not be one any more.
        let bad =
            theirs.replace("Private=yes", "Private=no").replace("Ethernet=yes", "Ethernet=no");
        let bad = bad.replace("[Exec]\n", "[Exec]\nCapability=all\n");
        std::fs::write(&plan.nspawn.path, &bad).unwrap();
        let after = rig.read().unwrap().text();
        let after = Machine::read_as(&rig.path, &after, &BTreeMap::new()).unwrap();
        assert!(Plan::new(&after, &Context::usual(&after), "web.toml").is_err());
        stays(&bad);
        // It would go past the gate, or has nothing to do with it.
        let gated = Rig::new("image = \"debian/12\"\n");
        let plan_of_it = gated.plan();
        plan_of_it.write().unwrap();
        let ported = plan_of_it.nspawn.text.clone() + "Port=tcp:80\n";
        std::fs::write(&plan_of_it.nspawn.path, &ported).unwrap();
        let after = Machine::read_as(&gated.path, &gated.read().unwrap().text(), &BTreeMap::new());
        let after = after.unwrap();
        let error = Plan::new(&after, &Context::usual(&after), "web.toml").unwrap_err();
        assert!(error.to_string().contains("past the gate"), "{error}");
        // It was changed meanwhile.
        std::fs::write(&plan.nspawn.path, &theirs).unwrap();
        let adoption = rig.read().unwrap();
        std::fs::write(&plan.nspawn.path, &bad).unwrap();
        let error = adoption.finish(&rig.plan()).unwrap_err();
        assert!(matches!(error, MachineError::Changed { .. }), "{error}");
        assert_eq!(text(&plan.nspawn.path), bad);
    }

    #[test]
    fn a_value_is_compared_as_it_is_meant() {
        let setting = |section: &str, key: &str, values: &[&str]| Setting {
            section: section.into(),
            key: key.into(),
            values: values.iter().map(|one| (*one).to_owned()).collect(),
        };
        let said = |theirs: &Setting, ours: &[&str]| {
            let ours: Vec<String> = ours.iter().map(|one| (*one).to_owned()).collect();
            said(theirs, &ours, &[]).map(|value| value.to_string())
        };
        let both = setting("Exec", "Capability", &["CAP_BPF CAP_CHOWN"]);
        assert_eq!(said(&both, &["CAP_CHOWN", "CAP_BPF"]), None);
        assert_eq!(said(&both, &["CAP_BPF"]).as_deref(), Some("\"CAP_CHOWN\""));
        let run = setting("Exec", "Parameters", &["--a", "x", "--b", "x"]);
        assert_eq!(said(&run, &["--a", "x", "--b", "x"]), None);
        let all = "[\"--a\", \"x\", \"--b\", \"x\"]";
        assert_eq!(said(&run, &["--b", "x", "--a"]).as_deref(), Some(all));
        let braces = setting("Files", "Bind", &["/a{{b}}"]);
        assert_eq!(said(&braces, &[]).as_deref(), Some("\"/a{{{{b}}\""));
    }
}
