//! The commands of the host that are this program under other names: `zfs`, `mount.zfs`,
//! `truenas-nsexec`, `midclt`. They ask the simulator over a socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;

use serde_json::{Value, json};

/// Where the simulator listens, in its own root.
pub const SOCKET: &str = "/run/nas-sim/sock";

/// The names that this program goes by.
pub const NAMES: [&str; 4] = ["zfs", "mount.zfs", "truenas-nsexec", "midclt"];

/// Runs as the command `name`; gives its exit code.
pub fn run(name: &str, argv: &[String]) -> i32 {
    let answer = match ask(name, argv) {
        Ok(answer) => answer,
        Err(e) => json!({"stderr": format!("{name}: {e}\n"), "code": 2}),
    };
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let _ = std::io::stdout().write_all(text("stdout").as_bytes());
    let _ = std::io::stderr().write_all(text("stderr").as_bytes());
    if let Some(argv) = answer["exec"].as_array() {
        let argv: Vec<&str> = argv.iter().filter_map(Value::as_str).collect();
        if let Some((program, rest)) = argv.split_first() {
            let failed = std::process::Command::new(program).args(rest).exec();
            let _ = writeln!(std::io::stderr(), "{name}: {program}: {failed}");
            return 2;
        }
    }
    answer["code"].as_i64().unwrap_or(2) as i32
}

fn ask(name: &str, argv: &[String]) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(SOCKET)?;
    let tty = rustix::termios::isatty(std::io::stdin());
    let cwd = std::env::current_dir().unwrap_or_default();
    let question = json!({"tool": name, "argv": argv, "cwd": cwd, "tty": tty});
    writeln!(stream, "{question}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
