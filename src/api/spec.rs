//! One entry of the registry: everything there is to know about a script function.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Args, Ctx, Result, ScriptError, Type, Value};

/// A boxed future of a handler.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Value>> + Send>>;
/// What a script function does.
pub type Handler = Arc<dyn Fn(Ctx, Args) -> HandlerFuture + Send + Sync>;

/// A positional parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub ty: Type,
    /// One sentence.
    pub doc: &'static str,
    /// Whether it may be left out.
    pub optional: bool,
}

/// A key of the options map.
#[derive(Clone, Debug)]
pub struct Opt {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub ty: Type,
    /// One sentence, with the default.
    pub doc: &'static str,
}

/// Something that can go wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The error's code, as [`ScriptError::code`] gives it.
    pub code: &'static str,
    /// When, in a sentence.
    pub when: &'static str,
}

/// How an entry is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// `name(…)`, or `handle.name(…)` where there is a receiver.
    Call,
    /// `handle.name`.
    Property,
}

/// A script function, method or property. Positional parameters come first, then the options map,
/// then a callback when the last parameter is one.
#[derive(Clone)]
pub struct FnSpec {
    /// The type of handle it belongs to; none for a plain function.
    pub receiver: Option<&'static str>,
    /// Its name.
    pub name: &'static str,
    /// Called, or read as a property.
    pub usage: Use,
    /// Positional parameters.
    pub params: Vec<Param>,
    /// What the options map may hold; no options map when empty.
    pub options: Vec<Opt>,
    /// What it gives.
    pub returns: Type,
    /// What it does, in sentences.
    pub doc: &'static str,
    /// What can go wrong, besides a wrong call.
    pub errors: Vec<Fault>,
    /// A line or two in Rhai, which a test runs.
    pub example: &'static str,
    /// The same in Lua.
    pub example_lua: &'static str,
    /// When the run is stopped, the call is let come to its own end and clean up.
    pub graceful: bool,
    /// What it does, in code.
    pub handler: Handler,
}

impl FnSpec {
    /// A plain function.
    pub fn function<F, R>(name: &'static str, handler: F) -> Self
    where
        F: Fn(Ctx, Args) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value>> + Send + 'static,
    {
        FnSpec {
            receiver: None,
            name,
            usage: Use::Call,
            params: Vec::new(),
            options: Vec::new(),
            returns: Type::Unit,
            doc: "",
            errors: Vec::new(),
            example: "",
            example_lua: "",
            graceful: false,
            handler: Arc::new(move |ctx, args| Box::pin(handler(ctx, args))),
        }
    }

    /// A method of a type of handle.
    pub fn method<F, R>(receiver: &'static str, name: &'static str, handler: F) -> Self
    where
        F: Fn(Ctx, Args) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value>> + Send + 'static,
    {
        FnSpec { receiver: Some(receiver), ..Self::function(name, handler) }
    }

    /// A property of a type of handle.
    pub fn property<F, R>(receiver: &'static str, name: &'static str, handler: F) -> Self
    where
        F: Fn(Ctx, Args) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value>> + Send + 'static,
    {
        FnSpec { usage: Use::Property, ..Self::method(receiver, name, handler) }
    }

    /// Adds a parameter.
    pub fn param(mut self, name: &'static str, ty: Type, doc: &'static str) -> Self {
        self.params.push(Param { name, ty, doc, optional: false });
        self
    }

    /// Adds a parameter that may be left out.
    pub fn optional(mut self, name: &'static str, ty: Type, doc: &'static str) -> Self {
        self.params.push(Param { name, ty, doc, optional: true });
        self
    }

    /// Adds an option.
    pub fn option(mut self, name: &'static str, ty: Type, doc: &'static str) -> Self {
        self.options.push(Opt { name, ty, doc });
        self
    }

    /// Adds options that several functions share.
    pub fn options(mut self, options: Vec<Opt>) -> Self {
        self.options.extend(options);
        self
    }

    /// Says what it gives.
    pub fn returns(mut self, ty: Type) -> Self {
        self.returns = ty;
        self
    }

    /// Says what it does.
    pub fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// Says what can go wrong.
    pub fn error(mut self, code: &'static str, when: &'static str) -> Self {
        self.errors.push(Fault { code, when });
        self
    }

    /// Shows how it is used, in Rhai and in Lua.
    pub fn example(mut self, rhai: &'static str, lua: &'static str) -> Self {
        self.example = rhai;
        self.example_lua = lua;
        self
    }

    /// Lets a call come to its own end when the run is stopped: it heeds the cancel token.
    pub fn graceful(mut self) -> Self {
        self.graceful = true;
        self
    }

    /// How few and how many arguments a call may have, the options map included.
    pub fn arity(&self) -> (usize, usize) {
        let least = self.params.iter().filter(|param| !param.optional).count();
        (least, self.params.len() + usize::from(!self.options.is_empty()))
    }

    /// The error for a wrong number of arguments; none when the number is right.
    pub fn count_error(&self, given: usize) -> Option<ScriptError> {
        let (least, most) = self.arity();
        if (least..=most).contains(&given) {
            return None;
        }
        let takes = match (least, most) {
            (0, 0) => "no arguments".into(),
            (1, 1) => "1 argument".into(),
            (least, most) if least == most => format!("{least} arguments"),
            (least, most) if least + 1 == most => format!("{least} or {most} arguments"),
            (least, most) => format!("{least} to {most} arguments"),
        };
        let error = ScriptError::runtime(format!("{} takes {takes}, got {given}", self.title()));
        Some(error.hint(format!("it is {}", self.signature())))
    }

    /// `sandbox()`, `Sandbox.run()` or `Sandbox.name`, for messages.
    pub fn title(&self) -> String {
        let call = if self.usage == Use::Call { "()" } else { "" };
        match self.receiver {
            Some(receiver) => format!("{receiver}.{}{call}", self.name),
            None => format!("{}{call}", self.name),
        }
    }

    /// `run(command: string | list<string>, options?) -> Result`, for messages and manuals.
    pub fn signature(&self) -> String {
        let receiver = self.receiver.map(|name| format!("{name}.")).unwrap_or_default();
        if self.usage == Use::Property {
            return format!("{receiver}{}: {}", self.name, self.returns.word());
        }
        let mut words: Vec<String> = self
            .params
            .iter()
            .map(|param| {
                let mark = if param.optional { "?" } else { "" };
                format!("{}{mark}: {}", param.name, param.ty.word())
            })
            .collect();
        if !self.options.is_empty() {
            let last_is_callback =
                matches!(self.params.last().map(|param| &param.ty), Some(Type::Callback(_)));
            let at = words.len() - usize::from(last_is_callback);
            words.insert(at, "options?: map".into());
        }
        let returns = match &self.returns {
            Type::Unit => String::new(),
            ty => format!(" -> {}", ty.word()),
        };
        format!("{receiver}{}({}){returns}", self.name, words.join(", "))
    }
}

impl std::fmt::Debug for FnSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.signature())
    }
}
