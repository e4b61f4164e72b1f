//! The commands a fake sandbox has. An option that is not known here is an error, never ignored.

use std::time::Duration;

use bytes::Bytes;

use super::shell::{End, Session};
use super::tree::{Data, Errno, Node};
use super::users;
use crate::sandbox::Signal;

/// The commands that are files in `/usr/bin`.
pub(super) const FILES: &[&str] = &[
    "[", "cat", "chmod", "chown", "cp", "echo", "env", "false", "hostname", "id", "kill", "ln",
    "ls", "mkdir", "mv", "printf", "pwd", "readlink", "rm", "sh", "sleep", "test", "touch", "true",
    "wc", "whoami",
];

/// What such a file holds.
pub(super) const MARK: &[u8] = b"#!built in\n";

type Status = Result<i32, End>;

/// The commands that change the shell itself.
pub(super) async fn special(shell: &mut Session, name: &str, args: &[String]) -> Status {
    let strs: Vec<&str> = args.iter().map(String::as_str).collect();
    match (name, strs.as_slice()) {
        (":", _) => Ok(0),
        ("cd", to @ ([] | [_])) => {
            let home = shell.env.get("HOME").cloned().unwrap_or_default();
            let to = to.first().map_or(home, |to| (*to).to_owned());
            match shell.enter(&to)? {
                Ok(()) => Ok(0),
                Err(why) => shell.fail(2, format!("sh: cd: {to}: {}", why.text())).await,
            }
        }
        (".", [path]) => match shell.read_file(path)? {
            Ok(bytes) => {
                let script = String::from_utf8_lossy(&bytes).into_owned();
                shell.script(&script).await
            }
            Err(why) => {
                Err(End::Exit(shell.fail(2, format!("sh: .: {path}: {}", why.text())).await?))
            }
        },
        ("exit", []) => Err(End::Exit(shell.status)),
        ("exit", [code]) => match code.parse::<i32>() {
            Ok(code) => Err(End::Exit(code & 0xff)),
            Err(_) => Err(End::Exit(shell.fail(2, format!("sh: exit: {code}: bad number")).await?)),
        },
        ("export", words) => {
            for word in words {
                let (name, value) = match word.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (*word, shell.vars.remove(*word)),
                };
                if let Some(value) = value {
                    shell.vars.remove(name);
                    shell.env.insert(name.to_owned(), value);
                }
            }
            Ok(0)
        }
        ("unset", names) => {
            for name in names {
                shell.vars.remove(*name);
                shell.env.remove(*name);
            }
            Ok(0)
        }
        _ => shell.fail(2, format!("{name}: the fake shell does not know these arguments")).await,
    }
}

/// The commands that are programs.
pub(super) async fn run(s: &mut Session, name: &str, args: &[String]) -> Status {
    let strs: Vec<&str> = args.iter().map(String::as_str).collect();
    match (name, strs.as_slice()) {
        ("true", _) => Ok(0),
        ("false", _) => Ok(1),
        ("echo", words) => {
            let (words, end) = match words {
                ["-n", rest @ ..] => (rest, ""),
                words => (words, "\n"),
            };
            s.out(format!("{}{end}", words.join(" ")).as_bytes()).await?;
            Ok(0)
        }
        ("printf", [format, args @ ..]) => printf(s, format, args).await,
        ("cat", paths) => cat(s, paths).await,
        ("wc", ["-c", paths @ ..]) => wc(s, paths).await,
        ("env", []) => {
            let text: String =
                s.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            s.out(text.as_bytes()).await?;
            Ok(0)
        }
        ("pwd", []) => {
            let cwd = s.cwd.clone();
            line(s, &cwd).await
        }
        ("hostname", []) => {
            let name = s.machine(|machine| machine.info.hostname.clone())?;
            line(s, &name).await
        }
        ("whoami" | "id", _) => id(s, name, &strs).await,
        ("sleep", [seconds]) => match seconds.parse::<f64>().map(Duration::try_from_secs_f64) {
            Ok(Ok(time)) => {
                tokio::time::sleep(time).await;
                s.gates.pass().await;
                Ok(0)
            }
            _ => s.fail(1, format!("sleep: invalid time interval '{seconds}'")).await,
        },
        ("kill", args) => kill(s, args).await,
        ("sh", ["-c", script, rest @ ..]) => {
            let mut shell = s.clone();
            shell.vars.clear();
            shell.args = if rest.is_empty() { vec!["sh"] } else { rest.to_vec() }
                .into_iter()
                .map(str::to_owned)
                .collect();
            shell.top(script).await
        }
        ("sh", []) => {
            let mut script = Vec::new();
            loop {
                match s.io.stdin.next().await {
                    chunk if chunk.is_empty() => break,
                    chunk => script.extend_from_slice(&chunk),
                }
            }
            let mut shell = s.clone();
            shell.top(&String::from_utf8_lossy(&script)).await
        }
        ("sh", [path, ..]) if !path.starts_with('-') => match s.read_file(path)? {
            Ok(script) => {
                let mut shell = s.clone();
                shell.args = args.to_vec();
                shell.top(&String::from_utf8_lossy(&script)).await
            }
            Err(why) => s.fail(127, format!("sh: {path}: {}", why.text())).await,
        },
        ("[", [inner @ .., "]"]) => test(s, inner).await,
        ("test", inner) => test(s, inner).await,
        ("chmod", [mode, paths @ ..]) => match u32::from_str_radix(mode, 8) {
            Ok(mode) => {
                change(s, name, paths, |uid, node| {
                    if uid != 0 && uid != node.uid {
                        return Err(Errno::Access);
                    }
                    node.mode = mode & 0o7777;
                    Ok(())
                })
                .await
            }
            Err(_) => s.fail(1, format!("chmod: '{mode}' is not an octal mode")).await,
        },
        ("chown", [owner, paths @ ..]) => match users::find(&s.tree()?, owner) {
            Ok(user) => {
                change(s, name, paths, |uid, node| {
                    if uid != 0 {
                        return Err(Errno::Access);
                    }
                    (node.uid, node.gid) = (user.uid, user.gid);
                    Ok(())
                })
                .await
            }
            Err(error) => s.fail(1, format!("chown: {error}")).await,
        },
        ("cp", [from, to]) => match s.read_file(from)? {
            Ok(bytes) => {
                let done = s.write_file(to, &bytes, false)?;
                report(s, name, to, done).await
            }
            Err(why) => report(s, name, from, Err(why)).await,
        },
        ("ln", ["-s", target, path]) => {
            let now = s.shared.clock.now();
            let node = Node::symlink(*target, now);
            let done = put(s, path, node)?;
            report(s, name, path, done).await
        }
        ("ls", paths) if paths.iter().all(|path| !path.starts_with('-')) => ls(s, paths).await,
        ("mkdir", ["-p", paths @ ..]) => {
            each(s, name, paths, |s, path| {
                let new = s.owned(Node::dir(0o755, s.shared.clock.now()));
                s.machine(|machine| {
                    let tree = &machine.tree;
                    if let Ok(parts) = tree.resolve(&s.cwd, path, true) {
                        if tree.get(&parts).is_some_and(|node| node.is_dir()) {
                            return Ok(());
                        }
                        s.may_enter(tree, &parts)?;
                    }
                    machine.change(|tree| tree.mkdirs(&s.cwd, path, &new)).map(drop)
                })
            })
            .await
        }
        ("mkdir", paths) if !paths.is_empty() => {
            each(s, name, paths, |s, path| {
                let node = s.owned(Node::dir(0o755, s.shared.clock.now()));
                put(s, path, node)
            })
            .await
        }
        ("mv", [from, to]) => {
            let done = s.machine(|machine| {
                let (from, node) = machine.tree.find(&s.cwd, from, false)?;
                let mut to = machine.tree.resolve(&s.cwd, to, true)?;
                if machine.tree.get(&to).is_some_and(|node| node.is_dir()) {
                    to.extend(from.last().cloned());
                }
                if to.starts_with(&from) {
                    return Err(Errno::Exists);
                }
                s.may_enter(&machine.tree, &from)?;
                s.may_enter(&machine.tree, &to)?;
                machine.change(|tree| {
                    tree.remove(&from)?;
                    tree.put(&to, node.as_ref().clone())
                })
            })?;
            report(s, name, from, done).await
        }
        ("readlink", [path]) => {
            let found = s.tree()?.find(&s.cwd, path, false);
            match found.map(|(_, node)| node.data.clone()) {
                Ok(Data::Symlink(target)) => line(s, &target).await,
                _ => Ok(1),
            }
        }
        ("rm", ["-rf" | "-fr", paths @ ..]) => {
            each(s, name, paths, |s, path| match remove(s, path, true)? {
                Err(Errno::NoEntry) => Ok(Ok(())),
                done => Ok(done),
            })
            .await
        }
        ("rm", ["-r", paths @ ..]) => each(s, name, paths, |s, path| remove(s, path, true)).await,
        ("rm", ["-f", paths @ ..]) => {
            each(s, name, paths, |s, path| match remove(s, path, false)? {
                Err(Errno::NoEntry) => Ok(Ok(())),
                done => Ok(done),
            })
            .await
        }
        ("rm", paths) if !paths.is_empty() && !paths[0].starts_with('-') => {
            each(s, name, paths, |s, path| remove(s, path, false)).await
        }
        ("touch", paths) if !paths.is_empty() => {
            each(s, name, paths, |s, path| {
                let directory = s.tree()?.find(&s.cwd, path, true).is_ok_and(|(_, n)| n.is_dir());
                if directory { Ok(Ok(())) } else { s.write_file(path, b"", true) }
            })
            .await
        }
        _ => s.fail(2, format!("{name}: the fake {name} does not know these arguments")).await,
    }
}

impl Session {
    fn owned(&self, mut node: Node) -> Node {
        (node.uid, node.gid) = (self.user.uid, self.user.gid);
        node
    }
}

async fn line(s: &mut Session, text: &str) -> Status {
    s.out(format!("{text}\n").as_bytes()).await?;
    Ok(0)
}

async fn report(s: &mut Session, name: &str, path: &str, done: Result<(), Errno>) -> Status {
    match done {
        Ok(()) => Ok(0),
        Err(why) => s.fail(1, format!("{name}: {path}: {}", why.text())).await,
    }
}

async fn each(
    s: &mut Session,
    name: &str,
    paths: &[&str],
    work: impl Fn(&Session, &str) -> Result<Result<(), Errno>, End>,
) -> Status {
    let mut status = 0;
    for path in paths {
        let done = work(s, path)?;
        status = status.max(report(s, name, path, done).await?);
    }
    Ok(status)
}

async fn change(
    s: &mut Session,
    name: &str,
    paths: &[&str],
    work: impl Fn(u32, &mut Node) -> Result<(), Errno>,
) -> Status {
    each(s, name, paths, |s, path| {
        s.machine(|machine| {
            let (parts, _) = machine.tree.find(&s.cwd, path, true)?;
            s.may(&machine.tree, &parts, 0)?;
            machine.change(|tree| {
                tree.get_mut(&parts).map_or(Err(Errno::NoEntry), |node| work(s.user.uid, node))
            })
        })
    })
    .await
}

fn put(s: &Session, path: &str, node: Node) -> Result<Result<(), Errno>, End> {
    let node = s.owned(node);
    s.machine(|machine| {
        let parts = machine.tree.resolve(&s.cwd, path.trim_end_matches('/'), false)?;
        if machine.tree.get(&parts).is_some() {
            return Err(Errno::Exists);
        }
        s.may_enter(&machine.tree, &parts)?;
        machine.change(|tree| tree.put(&parts, node))
    })
}

fn remove(s: &Session, path: &str, recursive: bool) -> Result<Result<(), Errno>, End> {
    s.machine(|machine| {
        let (parts, node) = machine.tree.find(&s.cwd, path, false)?;
        if node.is_dir() && !recursive {
            return Err(Errno::IsDir);
        }
        s.may_enter(&machine.tree, &parts)?;
        machine.change(|tree| tree.remove(&parts)).map(drop)
    })
}

async fn cat(s: &mut Session, paths: &[&str]) -> Status {
    let paths = if paths.is_empty() { &["-"] } else { paths };
    let mut status = 0;
    for path in paths {
        if *path == "-" {
            loop {
                let chunk = s.io.stdin.next().await;
                if chunk.is_empty() {
                    break;
                }
                s.gates.pass().await;
                s.out(&chunk).await?;
            }
            continue;
        }
        match s.read_file(path)? {
            Ok(bytes) => s.out(&bytes).await?,
            Err(why) => status = report(s, "cat", path, Err(why)).await?,
        }
    }
    Ok(status)
}

async fn wc(s: &mut Session, paths: &[&str]) -> Status {
    match paths {
        [] => {
            let mut count = 0;
            loop {
                match s.io.stdin.next().await {
                    chunk if chunk.is_empty() => break,
                    chunk => count += chunk.len(),
                }
            }
            line(s, &count.to_string()).await
        }
        [path] => match s.read_file(path)? {
            Ok(bytes) => line(s, &format!("{} {path}", bytes.len())).await,
            Err(why) => report(s, "wc", path, Err(why)).await,
        },
        _ => s.fail(2, "wc: the fake wc takes one file").await,
    }
}

async fn id(s: &mut Session, name: &str, args: &[&str]) -> Status {
    let user = s.user.clone();
    match (name, args) {
        ("id", ["-u"]) => line(s, &user.uid.to_string()).await,
        ("id", ["-g"]) => line(s, &user.gid.to_string()).await,
        ("id", ["-un"]) | ("whoami", []) => line(s, &user.name).await,
        _ => s.fail(2, format!("{name}: the fake {name} does not know these arguments")).await,
    }
}

async fn ls(s: &mut Session, paths: &[&str]) -> Status {
    let path = match paths {
        [] => ".",
        [path] => path,
        _ => return s.fail(2, "ls: the fake ls takes one path").await,
    };
    let tree = s.tree()?;
    let found = tree.find(&s.cwd, path, true).and_then(|(parts, node)| {
        s.may(&tree, &parts, 4)?;
        Ok(match &node.data {
            Data::Dir(children) => children
                .keys()
                .filter(|name| !name.starts_with('.'))
                .map(|n| format!("{n}\n"))
                .collect(),
            _ => format!("{path}\n"),
        })
    });
    match found {
        Ok(text) => {
            let text: String = text;
            s.out(text.as_bytes()).await?;
            Ok(0)
        }
        Err(why) => report(s, "ls", path, Err(why)).await.map(|_| 2),
    }
}

async fn kill(s: &mut Session, args: &[&str]) -> Status {
    let (signal, pids) = match args {
        ["-0", pids @ ..] => (Signal(0), pids),
        ["-s", name, pids @ ..] => match Signal::parse(name) {
            Ok(signal) => (signal, pids),
            Err(error) => return s.fail(1, format!("kill: {error}")).await,
        },
        [first, pids @ ..] if first.starts_with('-') => match Signal::parse(&first[1..]) {
            Ok(signal) => (signal, pids),
            Err(error) => return s.fail(1, format!("kill: {error}")).await,
        },
        pids => (Signal(15), pids),
    };
    let mut status = 0;
    for pid in pids {
        let Ok(number) = pid.parse::<u32>() else {
            status = s.fail(1, format!("kill: '{pid}' is not a process id")).await?;
            continue;
        };
        if !s.machine(|machine| super::process::signal(machine, number, signal.0))? {
            status = s.fail(1, format!("kill: ({pid}) - No such process")).await?;
        } else if number == s.pid && super::process::fatal(signal.0) {
            std::future::pending::<()>().await;
        }
    }
    s.gates.pass().await;
    Ok(status)
}

async fn test(s: &mut Session, args: &[&str]) -> Status {
    let yes = match args {
        ["!", rest @ ..] => {
            let inner = Box::pin(test(s, rest)).await?;
            return Ok(if inner > 1 { inner } else { 1 - inner });
        }
        [] => false,
        [text] => !text.is_empty(),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-t", fd] => s.tty && matches!(*fd, "0" | "1" | "2"),
        [a, "=", b] => a == b,
        [a, "!=", b] => a != b,
        [a, op @ ("-eq" | "-ne" | "-lt" | "-gt"), b] => {
            match (a.parse::<i64>(), b.parse::<i64>()) {
                (Ok(a), Ok(b)) => match *op {
                    "-eq" => a == b,
                    "-ne" => a != b,
                    "-lt" => a < b,
                    _ => a > b,
                },
                _ => return s.fail(2, "test: not a number").await,
            }
        }
        [op @ ("-e" | "-f" | "-d" | "-s" | "-x"), path] => {
            let tree = s.tree()?;
            match tree.find(&s.cwd, path, true) {
                Err(_) => false,
                Ok((parts, node)) => match *op {
                    "-f" => matches!(node.data, Data::File(_)),
                    "-d" => node.is_dir(),
                    "-s" => node.size() > 0,
                    "-x" => s.may(&tree, &parts, 1).is_ok(),
                    _ => true,
                },
            }
        }
        ["-L" | "-h", path] => {
            let found = s.tree()?.find(&s.cwd, path, false);
            found.is_ok_and(|(_, node)| matches!(node.data, Data::Symlink(_)))
        }
        _ => return s.fail(2, "test: the fake test does not know these arguments").await,
    };
    Ok(i32::from(!yes))
}

/// As in the shell: the format is used again as long as arguments are left.
async fn printf(s: &mut Session, format: &str, args: &[&str]) -> Status {
    let mut out = Vec::new();
    let mut left = args.iter();
    loop {
        let before = left.len();
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' => {
                    let mut octal = String::new();
                    while let Some(digit) =
                        chars.peek().filter(|c| c.is_digit(8) && octal.len() < 3)
                    {
                        octal.push(*digit);
                        chars.next();
                    }
                    if !octal.is_empty() {
                        out.push(u32::from_str_radix(&octal, 8).unwrap_or(0) as u8);
                        continue;
                    }
                    match chars.next() {
                        Some('n') => out.push(b'\n'),
                        Some('r') => out.push(b'\r'),
                        Some('t') => out.push(b'\t'),
                        Some('\\') => out.push(b'\\'),
                        _ => return s.fail(2, "printf: unknown escape in the fake printf").await,
                    }
                }
                '%' => match chars.next() {
                    Some('%') => out.push(b'%'),
                    Some('s') => out.extend(left.next().unwrap_or(&"").bytes()),
                    Some('d') => match left.next().unwrap_or(&"0").parse::<i64>() {
                        Ok(number) => out.extend(number.to_string().bytes()),
                        Err(_) => return s.fail(1, "printf: expected a number").await,
                    },
                    _ => return s.fail(2, "printf: unknown conversion in the fake printf").await,
                },
                c => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        if left.len() == 0 || left.len() == before {
            break;
        }
    }
    s.out(&Bytes::from(out)).await?;
    Ok(0)
}
