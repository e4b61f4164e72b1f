//! What Rhai itself has, for its language server.

use ::rhai::Engine;
use ::rhai::packages::{Package, StandardPackage};

use crate::api::Registry;
use crate::lang::MARK;

/// Rhai's own functions and operators as definitions, without what scripts do not get and what the
/// registry has under the same name.
pub fn definitions(registry: &Registry) -> String {
    let mut engine = Engine::new_raw();
    StandardPackage::new().register_into_engine(&mut engine);
    let all = engine.definitions().with_headers(false).single_file();
    let mut out = format!(
        "// {MARK}\n// The functions of the language itself, in the words of Rhai (MIT or Apache-2.0).\n\nmodule static;\n"
    );
    // A definition is a comment and the line behind it.
    let mut about: Vec<&str> = Vec::new();
    for line in all.lines().map(str::trim_end) {
        let name = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next());
        if line.starts_with("///") {
            about.push(line);
        } else if line.starts_with("fn ") || line.starts_with("op ") {
            let ours = name.is_some_and(|name| name == "eval" || registry.function(name).is_some());
            if !ours {
                out.push('\n');
                about.iter().for_each(|line| out.extend([line, "\n"]));
                out.extend([line, "\n"]);
            }
            about.clear();
        } else if !line.is_empty() {
            about.clear();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::rhai::unknown::builtin;

    #[test]
    fn all_that_rhai_has_is_there_once() {
        let registry = Registry::standard();
        let text = definitions(&registry);
        let has = |name: &str| text.contains(&format!("\nfn {name}("));
        for name in builtin().iter().filter(|name| registry.function(name).is_none()) {
            let property = text.contains(&format!("\nfn get {name}("));
            assert!(has(name) || property || name == "eval", "{name}");
        }
        assert!(has("print") && !has("eval") && !has("sleep") && !has("sandbox"));
        assert!(text.contains("\nop +(int, int) -> int;\n"));
        assert_eq!(text, definitions(&registry));
    }
}
