//! The table of everything that scripts can call.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::{Args, Ctx, FnSpec, Handle, Result, ScriptError, Use, Value, suggest};

/// How long a graceful call may clean up after the run was stopped.
const CLEANUP: Duration = Duration::from_secs(90);

/// All script functions, by name and receiver. Adding one is one entry in its noun's file.
pub struct Registry {
    specs: Vec<Arc<FnSpec>>,
    functions: HashMap<&'static str, Arc<FnSpec>>,
    members: HashMap<&'static str, HashMap<&'static str, Arc<FnSpec>>>,
}

impl Registry {
    /// The functions that sandscript itself has.
    pub fn standard() -> Arc<Registry> {
        static STANDARD: LazyLock<Arc<Registry>> =
            LazyLock::new(|| Arc::new(Registry::new(super::standard())));
        Arc::clone(&STANDARD)
    }

    /// A table of these entries; of two with the same name and receiver the later one counts.
    pub fn new(specs: Vec<FnSpec>) -> Registry {
        let mut registry =
            Registry { specs: Vec::new(), functions: HashMap::new(), members: HashMap::new() };
        for spec in specs {
            registry.add(spec);
        }
        registry
    }

    /// This table and more entries.
    pub fn with(&self, specs: Vec<FnSpec>) -> Registry {
        let all = self.specs.iter().map(|spec| FnSpec::clone(spec)).chain(specs);
        Registry::new(all.collect())
    }

    fn add(&mut self, spec: FnSpec) {
        let spec = Arc::new(spec);
        let names = match spec.receiver {
            Some(receiver) => self.members.entry(receiver).or_default(),
            None => &mut self.functions,
        };
        if names.insert(spec.name, Arc::clone(&spec)).is_some() {
            self.specs.retain(|old| (old.receiver, old.name) != (spec.receiver, spec.name));
        }
        self.specs.push(spec);
    }

    /// All entries, in the order they were added.
    pub fn specs(&self) -> &[Arc<FnSpec>] {
        &self.specs
    }

    /// A plain function.
    pub fn function(&self, name: &str) -> Option<&Arc<FnSpec>> {
        self.functions.get(name)
    }

    /// A method or property of a type of handle.
    pub fn member(&self, receiver: &str, name: &str) -> Option<&Arc<FnSpec>> {
        self.members.get(receiver)?.get(name)
    }

    /// The names of a type's members.
    pub fn members(&self, receiver: &str) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self
            .members
            .get(receiver)
            .into_iter()
            .flat_map(|names| names.keys().copied())
            .collect();
        names.sort_unstable();
        names
    }

    /// The names of all plain functions.
    pub fn functions(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.functions.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// Calls an entry: checks that the run goes on, binds the arguments, and ends at once when the
    /// run is stopped meanwhile.
    pub async fn call(
        &self,
        spec: &Arc<FnSpec>,
        ctx: Ctx,
        receiver: Option<Handle>,
        given: Vec<Value>,
    ) -> Result<Value> {
        ctx.stop.check()?;
        let Some(recorder) = ctx.host.recorder().cloned() else {
            return self.perform(spec, ctx, receiver, given).await;
        };
        let (trace, main) = (ctx.trace.clone(), ctx.cell.is_none());
        if let Some(trace) = &trace {
            trace.call(spec, receiver.as_ref(), &given);
        }
        let result = self.perform(spec, ctx, receiver, given).await;
        match (&trace, &result) {
            (Some(trace), Ok(value)) => trace.gave(value),
            (None, result) if main => recorder.tell(spec, result),
            _ => {}
        }
        result
    }

    async fn perform(
        &self,
        spec: &Arc<FnSpec>,
        ctx: Ctx,
        receiver: Option<Handle>,
        given: Vec<Value>,
    ) -> Result<Value> {
        // What is on another backend than its caller is worked with there.
        let ctx = match receiver.as_ref().and_then(|handle| handle.0.home()) {
            Some(host) => Ctx { host, ..ctx },
            None => ctx,
        };
        let args = Args::bind(spec, receiver, given)?;
        let stop = Arc::clone(&ctx.stop);
        let mut work = (spec.handler)(ctx, args);
        tokio::select! {
            biased;
            result = &mut work => {
                stop.check()?;
                return result;
            }
            () = stop.cancel.cancelled() => {}
        }
        if spec.graceful {
            let _ = tokio::time::timeout(CLEANUP, work).await;
        }
        Err(stop.error())
    }

    /// Reads a property of a handle, or says what there is.
    pub async fn read(&self, ctx: Ctx, handle: Handle, name: &str) -> Result<Value> {
        ctx.stop.check()?;
        if let Some(value) = handle.0.field(name) {
            return Ok(value);
        }
        let of = handle.0.type_name();
        match self.member(of, name) {
            Some(spec) if spec.usage == Use::Property => {
                let spec = Arc::clone(spec);
                self.call(&spec, ctx, Some(handle), Vec::new()).await
            }
            Some(_) => Err(ScriptError::runtime(format!("'{name}' of {of} is a function"))
                .hint(format!("call it: .{name}(…)"))
                .focus(name)),
            None => Err(self.unknown_member(&handle, name, Use::Property)),
        }
    }

    /// The error for a member that a handle does not have.
    pub fn unknown_member(&self, handle: &Handle, name: &str, usage: Use) -> ScriptError {
        self.unknown_member_of(handle.0.type_name(), &handle.0.fields(), name, usage)
    }

    /// The error for a member that a type of handle does not have; `fields` are what the handle has
    /// besides.
    pub fn unknown_member_of(
        &self,
        of: &str,
        fields: &[String],
        name: &str,
        usage: Use,
    ) -> ScriptError {
        let members = self.members(of);
        let alike = |other: &str| self.member(of, other).is_some_and(|spec| spec.usage == usage);
        let mut names: Vec<&str> = fields.iter().map(String::as_str).collect();
        names.extend(members.iter().filter(|member| alike(member)));
        if let Some(spec) = self.member(of, name)
            && usage == Use::Call
            && spec.usage == Use::Property
        {
            return ScriptError::runtime(format!("'{name}' of {of} is a property, not a function"))
                .hint(format!("leave the parentheses out: .{name}"));
        }
        let near = suggest::nearest(name, names.iter().copied())
            .or_else(|| suggest::nearest(name, members.iter().copied()));
        let hint = match near {
            Some(near) => Some(format!("did you mean '{near}'?")),
            None => suggest::hint(name, names),
        };
        let what = if usage == Use::Call { "function" } else { "property" };
        ScriptError::runtime(format!("{of} has no {what} '{name}'"))
            .hint(hint.unwrap_or_default())
            .focus(name)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.specs).finish()
    }
}
