//! Rhai's own words, turned into those that script writers know.

/// The word for a type that Rhai or Rust calls `name`.
pub(super) fn of_type(name: &str) -> String {
    let name = name.trim().trim_start_matches('&').trim_start_matches("mut ").trim();
    match name.split(" | ").next().unwrap_or(name).trim() {
        "i64" | "INT" | "rhai::INT" => "int",
        "f64" | "FLOAT" => "float",
        "&str" | "str" | "string" | "String" | "ImmutableString" => "string",
        "array" | "Array" => "list",
        "map" | "Map" => "map",
        "blob" | "Blob" => "bytes",
        "Fn" | "FnPtr" | "rhai::FnPtr" => "function",
        "()" => "nothing",
        "char" => "character",
        "bool" => "bool",
        "?" | "Dynamic" => "any value",
        other if other.contains("ImmutableString") => "string",
        other if other.contains("Held") => "handle",
        other if other.contains("Range") => "range",
        other if other.contains("Instant") => "timestamp",
        other if other.contains("::") => "value of another kind",
        other => return other.to_owned(),
    }
    .to_owned()
}

/// A signature such as `foo (i64, &str | ImmutableString | String)`: its name and its types.
pub(super) fn signature(text: &str) -> (String, Vec<String>) {
    let (name, rest) = text.split_once('(').unwrap_or((text, ""));
    let inside = rest.rsplit_once(')').map_or(rest, |(inside, _)| inside);
    let types = inside.split(", ").filter(|one| !one.is_empty()).map(of_type).collect();
    (name.trim().to_owned(), types)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_signatures() {
        assert_eq!(of_type("&str | ImmutableString | String"), "string");
        assert_eq!(of_type("std::time::Instant"), "timestamp");
        let (name, types) = signature("foo (i64, &str | ImmutableString | String, Fn)");
        assert_eq!((name.as_str(), types.join(",").as_str()), ("foo", "int,string,function"));
        assert_eq!(signature("foo ()"), ("foo".into(), vec![]));
    }
}
