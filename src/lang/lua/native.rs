//! What Lua itself has to say, in words for people who do not know its inside.

use crate::api::{ErrorKind, Registry, ScriptError, Use, suggest};

/// Lua's message, explained; and the word of the script that it is about.
pub(super) fn explain(message: &str, registry: &Registry) -> (ScriptError, Option<String>) {
    let name = quoted_name(message);
    if let Some((error, word)) = call_of_nothing(message, registry) {
        return (error, word);
    }
    (explain_alone(message), name.map(|(_, name)| name.to_owned()))
}

/// The kind and name at the end of a message: `(local 'x')`.
fn quoted_name(message: &str) -> Option<(&str, &str)> {
    let (kind, rest) = message.strip_suffix("')")?.rsplit_once(" '")?;
    Some((kind.rsplit_once('(')?.1, rest))
}

/// Calls of what is no function, where the registry knows what was meant.
fn call_of_nothing(message: &str, registry: &Registry) -> Option<(ScriptError, Option<String>)> {
    let rest = message.strip_prefix("attempt to call a ")?;
    let (kind, name) = quoted_name(rest)?;
    let what = rest.split(" value").next().unwrap_or_default();
    if name == "for iterator" {
        let error = ScriptError::runtime(format!("for can't walk over a {what}")).hint(
            "it walks over what pairs(), ipairs() and lines() give, or counts: for i = 1, 10 do",
        );
        return Some((error, Some("for".into())));
    }
    let property = registry
        .specs()
        .iter()
        .find(|spec| spec.name == name && spec.usage == Use::Property && spec.receiver.is_some());
    let error = match (property, what) {
        (Some(spec), _) if matches!(kind, "method" | "field") => {
            let of = spec.receiver.unwrap_or_default();
            ScriptError::runtime(format!("'{name}' of {of} is a property, not a function"))
                .hint(format!("leave the parentheses out: .{name}"))
        }
        (_, "nil") if matches!(kind, "method" | "field") => {
            let known = registry.specs().iter().map(|spec| spec.name);
            let near = suggest::nearest(name, known).filter(|near| *near != name);
            ScriptError::runtime(format!("there is no function '{name}' in it"))
                .hint(near.map(|near| format!("did you mean '{near}'?")).unwrap_or_default())
        }
        (_, "nil") => ScriptError::runtime(format!("'{name}' is nil, not a function")),
        (_, what) => ScriptError::runtime(format!("'{name}' is a {what}, not a function")),
    };
    Some((error, Some(name.to_owned())))
}

/// Lua's message, explained by itself.
pub(super) fn explain_alone(message: &str) -> ScriptError {
    let subject = quoted_name(message).map(|(_, name)| format!("'{name}'"));
    let kind = |rest: &str| rest.split(" value").next().unwrap_or(rest).to_owned();
    if message.contains("not enough memory") {
        return memory();
    }
    if message.contains("stack overflow") || message.contains("error in error handling") {
        return ScriptError::runtime("functions call each other too deep")
            .hint("a function that calls itself must come to an end");
    }
    if let Some(rest) = message.strip_prefix("attempt to index a ") {
        let kind = kind(rest);
        let subject = subject.unwrap_or_else(|| "this".into());
        return match kind.as_str() {
            "nil" => ScriptError::runtime(format!("{subject} is nil: it has no fields")),
            kind => ScriptError::runtime(format!("{subject} is a {kind}: it has no fields")),
        };
    }
    if let Some(rest) = message.strip_prefix("attempt to perform arithmetic on a ") {
        let subject = subject.map(|subject| format!(", which {subject} is")).unwrap_or_default();
        return ScriptError::runtime(format!(
            "arithmetic does not work on {}{subject}",
            kind(rest)
        ));
    }
    if let Some(rest) = message.strip_prefix("attempt to concatenate a ") {
        let subject = subject.map(|subject| format!(", which {subject} is")).unwrap_or_default();
        return ScriptError::runtime(format!("'..' does not work on {}{subject}", kind(rest)))
            .hint("tostring(value) makes text of anything");
    }
    if let Some(rest) = message.strip_prefix("attempt to compare ") {
        let both = rest.strip_prefix("two ").and_then(|rest| rest.strip_suffix(" values"));
        let (left, right) = match both {
            Some(both) => (both, both),
            None => rest.split_once(" with ").unwrap_or((rest, "that")),
        };
        return ScriptError::runtime(format!("'<' does not work on {left} and {right}"));
    }
    if message.starts_with("attempt to perform 'n") || message.contains("divide by zero") {
        return ScriptError::runtime("a whole number is divided by zero");
    }
    if let Some(rest) = message.strip_prefix("attempt to get length of a ") {
        let subject = subject.map(|subject| format!(", which {subject} is")).unwrap_or_default();
        let error = ScriptError::runtime(format!("'#' does not work on {}{subject}", kind(rest)));
        return match rest.starts_with("function") {
            true => error.hint("call the function with parentheses"),
            false => error,
        };
    }
    if message.starts_with("attempt to yield across") {
        return ScriptError::runtime("coroutine.yield() does not work here")
            .hint("not inside of what table.sort, string.gsub and a <close> variable call");
    }
    if let Some(rest) = message.strip_prefix("bad argument #")
        && let Some((number, rest)) = rest.split_once(" to '")
        && let Some((name, why)) = rest.split_once("' (")
    {
        let why = why.strip_suffix(')').unwrap_or(why);
        let why = match why.split_once(" expected, got ") {
            Some((want, got)) => format!("must be a {want}, got {got}"),
            None => format!("does not fit: {why}"),
        };
        return ScriptError::runtime(format!("argument {number} of {name}() {why}"));
    }
    if let Some(rest) = message.strip_prefix("attempt to call a ") {
        return ScriptError::runtime(format!("a {} is no function", kind(rest)));
    }
    ScriptError::runtime(message)
}

/// The error for a machine that wants more memory than it may have.
pub(super) fn memory() -> ScriptError {
    ScriptError::new(ErrorKind::Limit, "the script uses too much memory")
        .hint("keep large data in files of the sandbox")
}

/// A message of Lua's compiler.
pub(super) fn syntax(message: &str) -> String {
    if message.contains("C stack overflow")
        || message.contains("chunk has too many syntax levels")
        || message.contains("stack overflow")
    {
        return "an expression is nested too deep".into();
    }
    if let Some(name) = message.strip_prefix("attempt to assign to const variable ") {
        return format!("{name} is a constant");
    }
    message.replace("near <eof>", "at the end of the script").replace("<eof>", "the end")
}

/// What to do about it, where that is clear.
pub(super) fn syntax_hint(message: &str, line: &str) -> Option<String> {
    if message.contains("nested") || message.contains("overflow") {
        return Some("split it with variables".into());
    }
    if message.starts_with("attempt to assign to const") {
        return Some("declare it without <const>".into());
    }
    if message.starts_with("unfinished string") {
        return Some("a text ends on the line it begins on; [[…]] may be longer".into());
    }
    if line.contains("!=") {
        return Some("not equal is written ~=".into());
    }
    if line.contains("+=") || line.contains("-=") {
        return Some("write it out: x = x + 1".into());
    }
    if line.contains("&&") || line.contains("||") {
        return Some("write 'and' and 'or'".into());
    }
    if line.trim_start().starts_with("let ") {
        return Some("a variable is declared with local".into());
    }
    if line.trim_start().starts_with("//") {
        return Some("a comment begins with --".into());
    }
    if message.starts_with("'=' expected") || message.starts_with("syntax error") {
        return Some("a statement is a call or an assignment".into());
    }
    None
}
