//! `sandscript init`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::editor;
use super::session::Session;
use super::{CommandError, Result, stubs};
use crate::config::PROJECT_FILE;

const EXAMPLES: &str = "\
Examples:
  sandscript init                     a project in this folder, in Lua
  sandscript init --lang rhai demo    a project in the folder demo, in Rhai

Nothing that is there is overwritten.";

/// Begin a project: a first script, the configuration and the editor files
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Init {
    /// The language of the first script
    #[arg(long, value_enum, value_name = "LANGUAGE", default_value_t = Lang::Lua)]
    lang: Lang,
    /// The project folder; made when it is not there
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lang {
    Lua,
    Rhai,
}

const CONFIG: &str = "\
# Settings of this project. A flag or an environment variable of the same name counts more.

# Where sandboxes live.
# backend = \"local\"

# The machine that the backend drives, where that is another one.
# host = \"nas.example.org\"

# How many cells of a matrix run at once.
# jobs = 4

# Folders outside the project that scripts may use.
# allow_path = [\"../data\"]

# What a script itself may use up: memory for its values, operations of its language.
# max_memory = \"256MiB\"
# max_operations = 10_000_000

# Where secret(\"NAME\") comes from, when not from the environment variable of that name.
# [secrets]
# API_TOKEN = { env = \"CI_API_TOKEN\" }
";

const RHAI: &str = "\
// A first workflow: builds a base, and runs a small matrix in clones of it.
//
//   sandscript run main.rhai
//   sandscript run main.rhai --set greeting=hi
//   sandscript check

let greeting = param(\"greeting\", \"hello\", \"what every cell says\");

// Each step ends in a snapshot: the next run takes it from the cache.
let tools = base(\"tools\", |b| {
    b.run(\"mkdir -p /opt/app\");
    b.write(\"/opt/app/greeting\", greeting + \"\\n\");
});

// Each cell is a clone of its own.
let report = matrix(\"greetings\", #{
    from: tools,
    axes: #{ who: [\"world\", \"sandbox\"] },
}, |cell| {
    let said = cell.sandbox.read(\"/opt/app/greeting\");
    cell.sandbox.run([\"echo\", said, cell.who]);
});
print(`${report.passed} of ${report.total} cells passed`);
";

const LUA: &str = "\
-- A first workflow: builds a base, and runs a small matrix in clones of it.
--
--   sandscript run main.lua
--   sandscript run main.lua --set greeting=hi
--   sandscript check

local greeting = param(\"greeting\", \"hello\", \"what every cell says\")

-- Each step ends in a snapshot: the next run takes it from the cache.
local tools = base(\"tools\", function(b)
    b:run(\"mkdir -p /opt/app\")
    b:write(\"/opt/app/greeting\", greeting .. \"\\n\")
end)

-- Each cell is a clone of its own.
local report = matrix(\"greetings\", {
    from = tools,
    axes = { who = { \"world\", \"sandbox\" } },
}, function(cell)
    local said = cell.sandbox:read(\"/opt/app/greeting\")
    cell.sandbox:run({ \"echo\", said, cell.who })
end)
print(report.passed .. \" of \" .. report.total .. \" cells passed\")
";

impl Init {
    pub fn call(self, session: &Session<'_>) -> Result {
        let folder = session.folder.join(&self.folder);
        let (name, script) = match self.lang {
            Lang::Lua => ("main.lua", LUA),
            Lang::Rhai => ("main.rhai", RHAI),
        };
        let files = [(name, script), (PROJECT_FILE, CONFIG)];
        for (name, _) in &files {
            let path = folder.join(name);
            if path.symlink_metadata().is_ok() {
                let shown = self.folder.join(name);
                let shown = shown.strip_prefix(".").unwrap_or(&shown).display();
                return Err(CommandError::usage(format!("'{shown}' is there already"))
                    .hint("begin in another folder, or move it away"));
            }
        }
        // The stubs first: when they can't be written, no half project is left.
        let set_up = editor::set_up(&folder, &folder.join("stubs"))?;
        let mut done = Vec::new();
        for (name, text) in files {
            done.push(editor::write(folder.join(name), text)?);
        }
        done.extend(set_up);
        stubs::tell(session, &session.folder, &done);
        let place = match self.folder.as_os_str() == "." {
            true => String::new(),
            false => format!("cd {} && ", self.folder.display()),
        };
        session.output.note(format!("now: {place}sandscript run {name}"));
        Ok(0)
    }
}
