//! The arguments of a call, bound to the declared parameters and options.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Callback, FnSpec, Handle, Map, Object, Result, ScriptError, Type, Value, secret, suggest,
};
use crate::sandbox::{self, Program};

/// Arguments that fit the declaration: each parameter and option by its name.
#[derive(Debug)]
pub struct Args {
    spec: Arc<FnSpec>,
    receiver: Option<Handle>,
    params: Vec<Value>,
    options: Map,
}

impl Args {
    /// Binds the arguments of a call to what `spec` declares, or says what does not fit.
    pub fn bind(spec: &Arc<FnSpec>, receiver: Option<Handle>, given: Vec<Value>) -> Result<Args> {
        if let Some(error) = spec.count_error(given.len()) {
            return Err(error);
        }
        let mut params = vec![Value::Unit; spec.params.len()];
        let mut options = None;
        let mut next = 0;
        for value in given {
            let fits = |param: &super::Param| {
                param.ty.accepts(&value) || (param.optional && value.is_unit())
            };
            let here = spec.params.get(next);
            // An empty table of Lua is a list and a map alike.
            let map = match &value {
                Value::Map(map) => Some(map.clone()),
                Value::List(items) if items.is_empty() => Some(Map::new()),
                _ => None,
            };
            if let Some(map) = map
                && options.is_none()
                && !spec.options.is_empty()
                && !here.is_some_and(fits)
            {
                options = Some(map);
                continue;
            }
            // An optional parameter is passed over when the value fits a later one.
            let skipped = spec.params.iter().enumerate().skip(next);
            let mut fitting = skipped.clone();
            let found = loop {
                match fitting.next() {
                    Some((index, param)) if fits(param) => break Some(index),
                    Some((_, param)) if param.optional => {}
                    _ => break None,
                }
            };
            let Some(index) = found else {
                return Err(Args::mismatch(spec, next, options.is_some(), &value));
            };
            params[index] = value;
            next = index + 1;
        }
        if let Some(error) = Args::unfilled(spec, next) {
            return Err(error);
        }
        let options = options.unwrap_or_default();
        for (key, value) in &options {
            Args::check_option(spec, key, Some(value))?;
        }
        Ok(Args { spec: Arc::clone(spec), receiver, params, options })
    }

    /// All that was given.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.params.iter().chain(self.options.values())
    }

    /// The parameter or option; [`Value::Unit`] when it was not given.
    pub fn get(&self, name: &str) -> &Value {
        match self.spec.params.iter().position(|param| param.name == name) {
            Some(index) => &self.params[index],
            None => self.options.get(name).unwrap_or(&Value::Unit),
        }
    }

    /// Whether it was given.
    pub fn has(&self, name: &str) -> bool {
        !self.get(name).is_unit()
    }

    /// The object a method was called on.
    pub fn this<T: Object>(&self) -> Result<&T> {
        self.receiver.as_ref().and_then(Handle::downcast).ok_or_else(|| {
            ScriptError::runtime(format!("{} is called on another type", self.spec.title()))
        })
    }

    /// The handle a method was called on.
    pub fn receiver(&self) -> Option<&Handle> {
        self.receiver.as_ref()
    }

    /// Text, when given.
    pub fn string(&self, name: &str) -> Option<&str> {
        self.get(name).as_str()
    }

    /// Text that the declaration asks for.
    pub fn need(&self, name: &str) -> Result<&str> {
        self.string(name).ok_or_else(|| self.missing(name))
    }

    /// Whether an option is set; false when not given.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Value::Bool(true))
    }

    /// A whole number of at least 0, when given.
    pub fn count(&self, name: &str) -> Result<Option<u64>> {
        match self.get(name) {
            Value::Int(number) => u64::try_from(*number)
                .map(Some)
                .map_err(|_| self.wrong(name, format!("{number} is below 0"))),
            _ => Ok(None),
        }
    }

    /// A number, when given.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            Value::Int(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// A duration, when given.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>> {
        to_duration(self.get(name)).map_err(|error| self.within(name, error))
    }

    /// A size in bytes, when given.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.get(name) {
            Value::String(text) => {
                sandbox::parse_size(text).map(Some).map_err(|error| self.within(name, error.into()))
            }
            _ => self.count(name),
        }
    }

    /// Text or bytes, when given.
    pub fn data(&self, name: &str) -> Option<Bytes> {
        match self.get(name) {
            Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// A list; empty when not given.
    pub fn list(&self, name: &str) -> &[Value] {
        match self.get(name) {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// A list of texts; empty when not given.
    pub fn strings(&self, name: &str) -> Vec<String> {
        self.list(name).iter().map(Value::to_string).collect()
    }

    /// A map of texts; numbers and bools are written out. Empty when not given.
    pub fn string_map(&self, name: &str) -> BTreeMap<String, String> {
        match self.get(name) {
            Value::Map(map) => map.iter().map(|(k, v)| (k.clone(), v.to_string())).collect(),
            _ => BTreeMap::new(),
        }
    }

    /// A command.
    pub fn program(&self, name: &str) -> Result<Program> {
        match self.get(name) {
            Value::String(line) => Ok(Program::Shell(line.clone())),
            Value::List(_) => Ok(Program::Argv(self.strings(name))),
            _ => Err(self.missing(name)),
        }
    }

    /// A function of the script, when given.
    pub fn callback(&self, name: &str) -> Option<Callback> {
        match self.get(name) {
            Value::Callback(callback) => Some(callback.clone()),
            _ => None,
        }
    }

    /// Permission bits, when given: `0o644` or `"644"`.
    pub fn mode(&self, name: &str) -> Result<Option<u32>> {
        let bits = match self.get(name) {
            Value::Int(number) => u32::try_from(*number).ok(),
            Value::String(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
            _ => return Ok(None),
        };
        match bits {
            Some(bits) if bits <= 0o7777 => Ok(Some(bits)),
            _ => Err(self
                .wrong(name, format!("{} is no file mode", self.get(name).quoted()))
                .hint("write it as 0o644 or \"644\"")),
        }
    }

    /// An error about a parameter or option of this call.
    pub fn wrong(&self, name: &str, message: impl std::fmt::Display) -> ScriptError {
        let kind =
            if self.options.contains_key(name) { "option '" } else { "argument '" }.to_owned();
        ScriptError::runtime(format!("{kind}{name}' of {}: {message}", self.spec.title()))
            .focus(name)
    }

    /// The error for a parameter from `next` on that must be given; none when all may be left out.
    pub fn unfilled(spec: &FnSpec, next: usize) -> Option<ScriptError> {
        let missing = spec.params.iter().skip(next).find(|param| !param.optional)?;
        let (title, what) = (spec.title(), missing.ty.expected());
        let error = ScriptError::runtime(format!("{title} needs '{}': {what}", missing.name));
        Some(error.hint(format!("it is {}", spec.signature())))
    }

    /// Whether there is such an option, and whether its value, where that is known, is of its type.
    pub fn check_option(spec: &FnSpec, key: &str, value: Option<&Value>) -> Result<()> {
        let title = spec.title();
        let Some(option) = spec.options.iter().find(|option| option.name == key) else {
            let known = spec.options.iter().map(|option| option.name);
            let param = spec.params.iter().any(|param| param.name == key);
            let hint = if param {
                Some(format!("'{key}' is an argument: {}", spec.signature()))
            } else {
                suggest::hint(key, known)
            };
            return Err(ScriptError::runtime(format!("unknown option '{key}' of {title}"))
                .hint(hint.unwrap_or_default())
                .focus(key));
        };
        let Some(value) = value.filter(|value| !value.is_unit() && !option.ty.accepts(value))
        else {
            return Ok(());
        };
        let given = shown(value);
        let hint = if secret::within(value) { secret::WAYS } else { "" };
        Err(ScriptError::runtime(format!(
            "option '{key}' of {title} must be {}, got {given}",
            option.ty.expected()
        ))
        .hint(hint)
        .focus(key))
    }

    /// The error for an argument that is not what the parameter at `at` must be; `options` says
    /// whether there was an options map before it.
    pub fn mismatch(spec: &FnSpec, at: usize, options: bool, value: &Value) -> ScriptError {
        let title = spec.title();
        let hint = match secret::within(value) {
            true => format!("a secret is no text: {}", secret::WAYS),
            false => format!("it is {}", spec.signature()),
        };
        match spec.params.get(at) {
            Some(param) => ScriptError::runtime(format!(
                "'{}' of {title} must be {}, got {}",
                param.name,
                param.ty.expected(),
                shown(value)
            )),
            None if !options && !spec.options.is_empty() => ScriptError::runtime(format!(
                "the options of {title} must be a map, got {}",
                shown(value)
            )),
            None => ScriptError::runtime(format!("{title} takes fewer arguments")),
        }
        .hint(hint)
    }

    fn within(&self, name: &str, error: ScriptError) -> ScriptError {
        let message = error.message.split_once(": ").map_or(&*error.message, |(_, rest)| rest);
        self.wrong(name, message).hint(error.hint.clone().unwrap_or_default())
    }

    fn missing(&self, name: &str) -> ScriptError {
        ScriptError::runtime(format!("{} needs '{name}'", self.spec.title()))
    }
}

/// A duration from `"10m"` or a number of seconds; none from [`Value::Unit`].
pub fn to_duration(value: &Value) -> Result<Option<Duration>> {
    let seconds = match value {
        Value::Unit => return Ok(None),
        Value::String(text) => return Ok(Some(sandbox::parse_duration(text)?)),
        Value::Int(seconds) => *seconds as f64,
        Value::Float(seconds) => *seconds,
        _ => f64::NAN,
    };
    Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| {
        ScriptError::runtime(format!("{} is not a duration", value.quoted()))
            .hint(format!("use {}", Type::Duration.expected()))
    })
}

/// A value in a message: its type, and its content when that is short.
fn shown(value: &Value) -> String {
    match value {
        Value::Unit => "nothing".into(),
        Value::Handle(_) | Value::Callback(_) => format!("a {}", value.type_name()),
        Value::Bytes(_) => "bytes".into(),
        _ => {
            let text = value.quoted();
            if text.chars().count() <= 40 {
                format!("{} {text}", value.type_name())
            } else {
                format!("a {}", value.type_name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Arc<FnSpec> {
        let spec = FnSpec::function("make", |_, _| async { Ok(Value::Unit) })
            .optional("name", Type::String, "")
            .option("memory", Type::Size, "")
            .option("cpu", Type::Number, "")
            .param("body", Type::Callback(vec![("b", Type::Any)]), "");
        Arc::new(FnSpec { params: spec.params[..1].to_vec(), ..spec })
    }

    #[test]
    fn an_empty_table_of_lua_is_no_options() {
        let args = Args::bind(&spec(), None, vec![Value::List(Vec::new())]).unwrap();
        assert!(!args.has("name") && !args.has("cpu"));
    }

    #[test]
    fn a_map_in_front_is_the_options() {
        let args = Args::bind(&spec(), None, vec![Value::map([("cpu", 2.into())])]).unwrap();
        assert!(!args.has("name"));
        assert_eq!(args.number("cpu"), Some(2.0));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let bind = |given| Args::bind(&spec(), None, given).unwrap_err();
        let error = bind(vec!["a".into(), Value::map([("memmory", 1.into())])]);
        assert_eq!(error.message, "unknown option 'memmory' of make()");
        assert_eq!(error.hint.as_deref(), Some("did you mean 'memory'?"));
        let error = bind(vec![Value::map([("memory", true.into())])]);
        assert_eq!(
            error.message,
            "option 'memory' of make() must be a size such as \"512MiB\", or a number of bytes, \
             got bool true"
        );
        let error = bind(vec![3.into()]);
        assert_eq!(error.message, "'name' of make() must be a string, got int 3");
        let error = bind(vec!["a".into(), "b".into()]);
        assert_eq!(error.message, "the options of make() must be a map, got string \"b\"");
        let error = bind(vec![Value::map([("name", "x".into())])]);
        assert_eq!(
            error.hint.as_deref(),
            Some("'name' is an argument: make(name?: string, options?: map)")
        );
    }

    #[test]
    fn a_bad_size_names_the_option() {
        let args = Args::bind(&spec(), None, vec![Value::map([("memory", "1x".into())])]).unwrap();
        let error = args.size("memory").unwrap_err();
        assert_eq!(error.message, "option 'memory' of make(): '1x' is not a size");
        assert!(error.hint.as_deref().unwrap().contains("512MiB"));
    }
}
