//! The types that parameters, options and results are declared with.

use super::Value;

/// What a value may be. The registry checks arguments against it; stubs and manual print it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Type {
    /// Anything.
    Any,
    /// `true` or `false`.
    Bool,
    /// Bytes that need not be text.
    Bytes,
    /// A function with these parameters: name and type.
    Callback(Vec<(&'static str, Type)>),
    /// A command: a string for `sh -c`, or a list of strings delivered exactly.
    Command,
    /// Text or bytes.
    Data,
    /// `"10m"`, or a number of seconds.
    Duration,
    /// A whole number.
    Int,
    /// A list of one type.
    List(Box<Type>),
    /// A map with anything in it.
    Map,
    /// A map with values of one type.
    MapOf(Box<Type>),
    /// A whole number or one with a fraction.
    Number,
    /// A handle with this type name.
    Object(&'static str),
    /// One of several.
    OneOf(Vec<Type>),
    /// This, or nothing. Only results are declared so; a parameter is optional by itself.
    Option(Box<Type>),
    /// `"512MiB"`, or a number of bytes.
    Size,
    /// Text.
    String,
    /// Nothing.
    Unit,
    /// One of these words.
    Word(&'static [&'static str]),
}

impl Type {
    /// A list of this type.
    pub fn list(of: Type) -> Type {
        Type::List(Box::new(of))
    }

    /// A map with values of this type.
    pub fn map_of(of: Type) -> Type {
        Type::MapOf(Box::new(of))
    }

    /// This type or nothing.
    pub fn option(of: Type) -> Type {
        Type::Option(Box::new(of))
    }

    /// Whether `value` is of this type. An empty list stands for an empty map and the other way
    /// round, for languages that can't tell them apart.
    pub fn accepts(&self, value: &Value) -> bool {
        let empty = match value {
            Value::List(items) => items.is_empty(),
            Value::Map(map) => map.is_empty(),
            _ => false,
        };
        match (self, value) {
            (Type::Any, _)
            | (Type::Bool, Value::Bool(_))
            | (Type::Bytes, Value::Bytes(_))
            | (Type::Callback(_), Value::Callback(_))
            | (Type::Command | Type::Data | Type::String, Value::String(_))
            | (Type::Data, Value::Bytes(_))
            | (Type::Duration, Value::String(_) | Value::Int(_) | Value::Float(_))
            | (Type::Int, Value::Int(_))
            | (Type::Number, Value::Int(_) | Value::Float(_))
            | (Type::Size, Value::String(_) | Value::Int(_))
            | (Type::Map, Value::Map(_))
            | (Type::Unit | Type::Option(_), Value::Unit) => true,
            (Type::Command, Value::List(items)) => {
                items.iter().all(|item| matches!(item, Value::String(_)))
            }
            (Type::List(of), Value::List(items)) => items.iter().all(|item| of.accepts(item)),
            (Type::MapOf(of), Value::Map(map)) => map.values().all(|item| of.accepts(item)),
            (Type::List(_) | Type::Map | Type::MapOf(_), _) if empty => true,
            (Type::Object(name), Value::Handle(handle)) => handle.0.type_name() == *name,
            (Type::OneOf(types), value) => types.iter().any(|of| of.accepts(value)),
            (Type::Option(of), value) => of.accepts(value),
            (Type::Word(words), Value::String(text)) => words.contains(&text.as_str()),
            _ => false,
        }
    }

    /// For messages: what is expected, with an example where one helps.
    pub fn expected(&self) -> String {
        match self {
            Type::Any => "any value".into(),
            Type::Bool => "true or false".into(),
            Type::Bytes => "bytes".into(),
            Type::Callback(params) => format!(
                "a function that takes {}",
                match params.as_slice() {
                    [] => "nothing".into(),
                    [one] => format!("one argument ({})", one.0),
                    many => format!(
                        "{} arguments ({})",
                        many.len(),
                        many.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                    ),
                }
            ),
            Type::Command => {
                "a command: a string for the shell, or a list of strings such as [\"ls\", \"-l\"]"
                    .into()
            }
            Type::Data => "a string or bytes".into(),
            Type::Duration => "a duration such as \"10m\", or a number of seconds".into(),
            Type::Int => "a whole number".into(),
            Type::List(of) if **of == Type::Any => "a list".into(),
            Type::List(of) => format!("a list; each item {}", of.expected()),
            Type::Map => "a map".into(),
            Type::MapOf(of) => format!("a map; each value {}", of.expected()),
            Type::Number => "a number".into(),
            Type::Object(name) => format!("a {name}"),
            Type::OneOf(types) => {
                types.iter().map(Type::expected).collect::<Vec<_>>().join(", or ")
            }
            Type::Option(of) => of.expected(),
            Type::Size => "a size such as \"512MiB\", or a number of bytes".into(),
            Type::String => "a string".into(),
            Type::Unit => "nothing".into(),
            Type::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                words.join(" or ")
            }
        }
    }

    /// The short form for signatures: `string`, `list<string>`, `Sandbox?`.
    pub fn word(&self) -> String {
        match self {
            Type::Any => "any".into(),
            Type::Bool => "bool".into(),
            Type::Bytes => "bytes".into(),
            Type::Callback(params) => {
                let params: Vec<String> =
                    params.iter().map(|(name, of)| format!("{name}: {}", of.word())).collect();
                format!("fn({})", params.join(", "))
            }
            Type::Command => "string | list<string>".into(),
            Type::Data => "string | bytes".into(),
            Type::Duration => "duration".into(),
            Type::Int => "int".into(),
            Type::List(of) => format!("list<{}>", of.word()),
            Type::Map => "map".into(),
            Type::MapOf(of) => format!("map<{}>", of.word()),
            Type::Number => "number".into(),
            Type::Object(name) => (*name).into(),
            Type::OneOf(types) => types.iter().map(Type::word).collect::<Vec<_>>().join(" | "),
            Type::Option(of) => format!("{}?", of.word()),
            Type::Size => "size".into(),
            Type::String => "string".into(),
            Type::Unit => "nothing".into(),
            Type::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                words.join(" | ")
            }
        }
    }
}
