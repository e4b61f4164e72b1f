//! What is looked at on a host: this one, one by SSH, or one of a test.

use std::path::Path;

/// A host that is only looked at.
pub trait Host {
    /// What is in a file; nothing where it can't be read.
    fn read(&self, path: &str) -> Option<String>;
    /// Whether there is something at a path.
    fn exists(&self, path: &str) -> bool;
    /// Whether there is something at a path of a root file system, in which links stay.
    fn exists_inside(&self, root: &Path, path: &str) -> bool;
    /// The names in a folder, sorted; none where it is not there.
    fn list(&self, path: &str) -> Vec<String>;
    /// What a program prints, where it is there and succeeds.
    fn output(&self, argv: &[&str]) -> Option<String>;
}

/// This machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisHost;

impl Host for ThisHost {
    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    fn exists_inside(&self, root: &Path, path: &str) -> bool {
        crate::transfer::exists_inside(root, Path::new(path))
    }

    fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn output(&self, argv: &[&str]) -> Option<String> {
        let (program, rest) = argv.split_first()?;
        let mut command = std::process::Command::new(program);
        command.args(rest).stdin(std::process::Stdio::null());
        let output = command.output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    }
}

/// A host that is made up: files by their paths, and what programs print by their command lines.
#[derive(Clone, Debug, Default)]
pub struct MadeUp {
    /// Files: a path, and what is in it.
    pub files: std::collections::BTreeMap<String, String>,
    /// Programs: a command line, and what it prints.
    pub programs: std::collections::BTreeMap<String, String>,
}

impl MadeUp {
    /// With these files.
    pub fn with<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> MadeUp {
        let files = files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned()));
        MadeUp { files: files.collect(), ..MadeUp::default() }
    }
}

impl Host for MadeUp {
    fn read(&self, path: &str) -> Option<String> {
        self.files.get(path).cloned()
    }

    fn exists(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.files.keys().any(|file| file == path || file.starts_with(&below))
    }

    fn exists_inside(&self, root: &Path, path: &str) -> bool {
        self.exists(&root.join(path).display().to_string())
    }

    fn list(&self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        let inside = self.files.keys().filter_map(|file| file.strip_prefix(&below));
        let mut names: Vec<String> =
            inside.map(|rest| rest.split('/').next().unwrap_or(rest).to_owned()).collect();
        names.dedup();
        names
    }

    fn output(&self, argv: &[&str]) -> Option<String> {
        self.programs.get(&argv.join(" ")).cloned()
    }
}
