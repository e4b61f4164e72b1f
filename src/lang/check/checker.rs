//! What a script is checked against: the registry, and the modules that it imports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Finding;
use crate::api::{Registry, Result, ScriptError};
use crate::lang::tree::Exports;
use crate::lang::{Found, Language, Modules, Source, language, stdlib};

/// A module: its language, and its file or name.
type Id = (&'static str, String);
/// What a module has; none when its text does not tell.
type Known = Option<Arc<Exports>>;

/// A module that was read.
struct Module {
    exports: Known,
    /// What it imports as soon as it is imported.
    imports: Vec<String>,
    source: Source,
    /// None for a module of the standard library.
    file: Option<PathBuf>,
}

/// Checks scripts, and knows the modules that they import.
pub struct Checker<'a> {
    pub(super) registry: &'a Registry,
    /// The presets that policies may name; not looked at where they are not known.
    pub(super) presets: Option<BTreeSet<String>>,
    project: Option<Project>,
    modules: Mutex<BTreeMap<Id, Arc<Module>>>,
    imported: Mutex<Vec<(PathBuf, Source)>>,
    /// The circles of imports that were told.
    circles: Mutex<BTreeSet<BTreeSet<PathBuf>>>,
}

/// Where the project's own modules are.
struct Project {
    folder: PathBuf,
    allowed: Vec<PathBuf>,
    /// The folders of the scripts that are checked.
    scripts: BTreeSet<PathBuf>,
}

impl<'a> Checker<'a> {
    /// A checker that knows the modules of the standard library, and nothing of others.
    pub fn new(registry: &'a Registry) -> Checker<'a> {
        Checker {
            registry,
            presets: None,
            project: None,
            modules: Mutex::default(),
            imported: Mutex::default(),
            circles: Mutex::default(),
        }
    }

    /// A checker that knows the modules of a project, too. `scripts` are the files that will be
    /// checked: any of them may be the one that is run.
    pub fn of_project(
        registry: &'a Registry,
        folder: &Path,
        allowed: &[PathBuf],
        scripts: &[PathBuf],
    ) -> Checker<'a> {
        let scripts = scripts.iter().filter_map(|path| path.parent()).map(Path::to_owned);
        let project = Project {
            folder: folder.to_owned(),
            allowed: allowed.iter().filter_map(|path| path.canonicalize().ok()).collect(),
            scripts: scripts.collect(),
        };
        Checker { project: Some(project), ..Checker::new(registry) }
    }

    /// Knows the presets that egress policies may name.
    pub fn presets<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.presets = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Reads a script without running it, and finds all that is wrong in it, in the order it stands
    /// there.
    pub fn check(&self, source: &Source) -> Vec<Finding> {
        // Parsers and rules walk down into what is nested.
        std::thread::scope(|scope| {
            let work = || super::read(source, self);
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
            thread.ok().and_then(|thread| thread.join().ok())
        })
        .unwrap_or_else(|| {
            let error = ScriptError::runtime(format!("'{}' could not be checked", source.name))
                .hint("this is a fault of sandscript; please report it with the script");
            vec![Finding { code: "syntax", error }]
        })
    }

    /// The project's own modules that were imported since this was last asked, with their real
    /// paths.
    pub fn imported(&self) -> Vec<(PathBuf, Source)> {
        std::mem::take(&mut lock(&self.imported))
    }

    /// What the module has that a script imports; none when that is not known. Fails when there is
    /// no such module.
    pub(super) fn exports(&self, source: &Source, name: &str) -> Result<Known> {
        Ok(self.module(source, name)?.and_then(|module| module.exports.clone()))
    }

    /// The names of the modules by which the one that `source` imports leads back to it, when they
    /// do and nobody was told yet.
    pub(super) fn circle(&self, source: &Source, name: &str) -> Option<Vec<String>> {
        let own = Path::new(&*source.name).canonicalize().ok()?;
        let first = self.module(source, name).ok()??;
        let mut seen: BTreeSet<PathBuf> = first.file.iter().cloned().collect();
        let mut ways = VecDeque::from([(vec![name.to_owned()], vec![first])]);
        while let Some((names, modules)) = ways.pop_front() {
            let last = modules.last()?;
            if last.file.as_ref() == Some(&own) {
                let members = modules.iter().filter_map(|module| module.file.clone()).collect();
                let new = lock(&self.circles).insert(members);
                // The last of them is what it all began with.
                let (back, rest) = names.split_last()?;
                let way = std::iter::once(back).chain(rest).cloned().collect();
                return new.then_some(way);
            }
            for name in &last.imports {
                let Ok(Some(next)) = self.module(&last.source, name) else { continue };
                let Some(file) = &next.file else { continue };
                if *file == own || seen.insert(file.clone()) {
                    let (mut names, mut modules) = (names.clone(), modules.clone());
                    names.push(name.clone());
                    modules.push(next);
                    ways.push_back((names, modules));
                }
            }
        }
        None
    }

    fn module(&self, source: &Source, name: &str) -> Result<Option<Arc<Module>>> {
        let Ok(language) = language(&source.name) else { return Ok(None) };
        let Some(found) = self.find(source, language, name)? else { return Ok(None) };
        let id = match &found.file {
            Some(file) => file.display().to_string(),
            None => name.to_owned(),
        };
        let key = (language.name(), id);
        if let Some(known) = lock(&self.modules).get(&key) {
            return Ok(Some(Arc::clone(known)));
        }
        let tree = language.tree(&found.source, self.registry);
        let (imports, mut exports) = (tree.imports(), tree.exports);
        match &found.file {
            Some(file) => lock(&self.imported).push((file.clone(), found.source.clone())),
            None if tree.builtin.flat_functions => {}
            None => exports.iter_mut().for_each(|exports| self.count(exports, name)),
        }
        let Found { source, file } = found;
        let module = Module { exports: exports.map(Arc::new), imports, source, file };
        Ok(Some(Arc::clone(lock(&self.modules).entry(key).or_insert(Arc::new(module)))))
    }

    /// Where any number of arguments may be right for the language, the standard library still says
    /// how many its functions take: as many as in the language that is exact.
    fn count(&self, exports: &mut Exports, name: &str) {
        let exact = || {
            let language = language("x.rhai").ok()?;
            let text = stdlib::text(name.strip_prefix(stdlib::PREFIX)?, "rhai")?;
            language.tree(&Source::new("x.rhai", text), self.registry).exports
        };
        if let Some(exact) = exact() {
            for (name, takes) in &mut exports.functions {
                *takes = exact.functions.get(name).cloned().unwrap_or_default();
            }
        }
    }

    /// The module; none when it is not known which it will be.
    fn find(&self, source: &Source, language: &dyn Language, name: &str) -> Result<Option<Found>> {
        let end = language.extensions()[0];
        let search = |source: &Source, project: &Project| {
            Modules::within(source, end, &project.folder, &project.allowed)
                .find(name, &mut Vec::new())
        };
        let none = Project { folder: PathBuf::new(), allowed: vec![], scripts: BTreeSet::new() };
        if name.starts_with(stdlib::PREFIX) {
            return search(source, &none).map(Some);
        }
        let Some(project) = &self.project else { return Ok(None) };
        let from = |folder: &Path| {
            let script = folder.join(format!("script.{end}")).display().to_string();
            search(&Source::new(script, ""), project).ok()
        };
        // A module is found from the script that is run, which may stand in a folder above it.
        let own = Path::new(&*source.name).canonicalize().unwrap_or_default();
        let above = own.ancestors().skip(2).take_while(|path| path.starts_with(&project.folder));
        let mut above: Vec<Found> = above.filter_map(from).collect();
        match search(source, project) {
            Ok(found) if above.iter().all(|other| other.file == found.file) => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(error) => {
                if above.is_empty() {
                    above = project.scripts.iter().filter_map(|folder| from(folder)).collect();
                }
                let Some(first) = above.pop() else { return Err(error) };
                let same = above.iter().all(|other| other.file == first.file);
                Ok(same.then_some(first))
            }
        }
    }
}

/// Virtual: only what is used becomes memory.
const STACK: usize = 256 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
