//! The neutral value that every script language converts to and from.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Result;

/// A map of values. Ordered by key, so that every language iterates alike.
pub type Map = BTreeMap<String, Value>;

/// A value a script passes in or gets back.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing: `()` in Rhai, `nil` in Lua.
    #[default]
    Unit,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    String(String),
    /// Bytes that need not be text.
    Bytes(Bytes),
    /// A list.
    List(Vec<Value>),
    /// A map with text keys.
    Map(Map),
    /// A thing of the host: a sandbox, a process.
    Handle(Handle),
    /// A function of the script.
    Callback(Callback),
}

/// Something of the host that a script holds on to. Cloning it gives the same thing.
#[derive(Clone)]
pub struct Handle(pub Arc<dyn Object>);

/// What a [`Handle`] points to. Its methods and properties are in the registry, by
/// [`Object::type_name`].
pub trait Object: Any + Send + Sync {
    /// The receiver name of its registry entries, e.g. `Sandbox`.
    fn type_name(&self) -> &'static str;

    /// The friendly form: what `print(handle)` shows. Never a secret.
    fn describe(&self) -> String;

    /// A field that only this object has, beside the properties of its type.
    fn field(&self, _name: &str) -> Option<Value> {
        None
    }

    /// The names that [`Object::field`] knows.
    fn fields(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether `for` may walk over it: it then has a method `next` that gives nothing at its end.
    fn iterable(&self) -> bool {
        false
    }

    /// The host whose backend it is on, for as long as the run lasts; that of whoever calls when not
    /// said.
    fn home(&self) -> Option<Arc<super::Host>> {
        None
    }

    /// What happens when a variable's scope is left that was declared to close this, as by
    /// `<close>` in Lua; none when nothing does.
    fn leave(&self, _ctx: super::Ctx) -> Option<super::HandlerFuture> {
        None
    }
}

/// A function of the script, callable from anywhere.
#[derive(Clone)]
pub struct Callback(pub Arc<dyn Callable>);

/// What a [`Callback`] points to.
#[async_trait]
pub trait Callable: Any + Send + Sync {
    /// Calls it and waits for its result. `ctx` decides when it is stopped.
    async fn call(&self, ctx: &super::Ctx, args: Vec<Value>) -> Result<Value>;

    /// The same function with its own copies of what it captured, so that several of it may run
    /// at once.
    fn isolated(&self) -> Arc<dyn Callable>;
}

impl Handle {
    /// A handle on a new object.
    pub fn new(object: impl Object) -> Self {
        Handle(Arc::new(object))
    }

    /// The object, when it is a `T`.
    pub fn downcast<T: Object>(&self) -> Option<&T> {
        let any: &dyn Any = &*self.0;
        any.downcast_ref()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.describe())
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("function")
    }
}

impl Value {
    /// A handle on a new object.
    pub fn object(object: impl Object) -> Self {
        Value::Handle(Handle::new(object))
    }

    /// The value, or [`Value::Unit`].
    pub fn option(value: Option<impl Into<Value>>) -> Self {
        value.map_or(Value::Unit, Into::into)
    }

    /// A map from pairs.
    pub fn map<K: Into<String>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value::Map(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// The word a script writer knows the type by.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Unit => "nothing",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Handle(handle) => handle.0.type_name(),
            Value::Callback(_) => "function",
        }
    }

    /// The text in a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is [`Value::Unit`].
    pub fn is_unit(&self) -> bool {
        matches!(self, Value::Unit)
    }

    /// The form that shows quotes around text, for messages and inside lists.
    pub fn quoted(&self) -> String {
        let mut text = String::new();
        self.write(&mut text, true);
        text
    }

    fn write(&self, out: &mut String, quote: bool) {
        let _ = match self {
            Value::Unit => write!(out, "()"),
            Value::Bool(value) => write!(out, "{value}"),
            Value::Int(value) => write!(out, "{value}"),
            Value::Float(value) => write!(out, "{value:?}"),
            Value::String(text) if quote => write!(out, "{text:?}"),
            Value::String(text) => write!(out, "{text}"),
            Value::Bytes(bytes) => write!(out, "<{} bytes>", bytes.len()),
            Value::Handle(handle) => write!(out, "{}", handle.0.describe()),
            Value::Callback(_) => write!(out, "<function>"),
            Value::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    item.write(out, true);
                }
                write!(out, "]")
            }
            Value::Map(map) => {
                out.push('{');
                for (index, (key, value)) in map.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    let plain = !key.is_empty()
                        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                    let _ = if plain { write!(out, "{key}: ") } else { write!(out, "{key:?}: ") };
                    value.write(out, true);
                }
                write!(out, "}}")
            }
        };
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text, false);
        f.write_str(&text)
    }
}

impl PartialEq for Value {
    /// By content; a whole number equals the same number with a fraction of 0; handles and
    /// functions are equal when they are the same thing.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Unit, Value::Unit) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
            (Value::String(a), Value::String(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            (Value::Map(a), Value::Map(b)) => a == b,
            (Value::Handle(a), Value::Handle(b)) => Arc::ptr_eq(&a.0, &b.0),
            (Value::Callback(a), Value::Callback(b)) => Arc::ptr_eq(&a.0, &b.0),
            _ => false,
        }
    }
}

macro_rules! from {
    ($($from:ty => |$value:ident| $to:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $to
            }
        })*
    };
}

from! {
    () => |_value| Value::Unit;
    bool => |value| Value::Bool(value);
    i64 => |value| Value::Int(value);
    i32 => |value| Value::Int(value.into());
    u32 => |value| Value::Int(value.into());
    u64 => |value| Value::Int(value.try_into().unwrap_or(i64::MAX));
    usize => |value| Value::Int(value.try_into().unwrap_or(i64::MAX));
    f64 => |value| Value::Float(value);
    &str => |value| Value::String(value.to_owned());
    String => |value| Value::String(value);
    Bytes => |value| Value::Bytes(value);
    Vec<u8> => |value| Value::Bytes(value.into());
    Vec<Value> => |value| Value::List(value);
    Vec<String> => |value| Value::List(value.into_iter().map(Value::String).collect());
    Map => |value| Value::Map(value);
    BTreeMap<String, String> => |value| Value::map(value.into_iter().map(|(k, v)| (k, v.into())));
    Handle => |value| Value::Handle(value);
    std::time::SystemTime => |value| {
        Value::Float(value.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64())
    };
    std::time::Duration => |value| Value::Float(value.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn friendly_forms() {
        let value = Value::map([
            ("a b", Value::from(1)),
            ("list", vec![Value::from("x\n"), 1.0.into(), ().into()].into()),
        ]);
        assert_eq!(value.to_string(), r#"{"a b": 1, list: ["x\n", 1.0, ()]}"#);
        assert_eq!(Value::from("plain").to_string(), "plain");
        assert_eq!(Value::from(vec![0u8, 1]).to_string(), "<2 bytes>");
    }

    #[test]
    fn numbers_compare_by_value() {
        assert_eq!(Value::from(2), Value::from(2.0));
        assert_ne!(Value::from(2), Value::from("2"));
    }
}
