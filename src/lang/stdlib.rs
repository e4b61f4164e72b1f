//! The standard library: modules in the script languages themselves, inside the program.

/// What the names of its modules begin with.
pub const PREFIX: &str = "std/";

/// A module, in every language.
struct Module {
    name: &'static str,
    rhai: &'static str,
    lua: &'static str,
}

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        &[$(Module {
            name: $name,
            rhai: include_str!(concat!("../../stdlib/", $name, ".rhai")),
            lua: include_str!(concat!("../../stdlib/", $name, ".lua")),
        }),*]
    };
}

const MODULES: &[Module] = modules![
    "apk", "apt", "check", "dnf", "git", "go", "node", "packages", "python", "retry", "rust",
    "services", "shell", "users",
];

/// The names of all modules, without [`PREFIX`].
pub fn names() -> impl Iterator<Item = &'static str> {
    MODULES.iter().map(|module| module.name)
}

/// The names of all modules as scripts import them.
pub fn titles() -> Vec<String> {
    names().map(|name| format!("{PREFIX}{name}")).collect()
}

/// The text of a module, in the language whose files end in `extension`.
pub fn text(name: &str, extension: &str) -> Option<&'static str> {
    let module = MODULES.iter().find(|module| module.name == name)?;
    match extension {
        "lua" => Some(module.lua),
        "rhai" => Some(module.rhai),
        _ => None,
    }
}
