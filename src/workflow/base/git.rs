//! Trees of git commits, fetched by the host's own git.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::sandbox::{Cancel, Error, Kind, Reader, Result};

use super::super::RunContext;
use super::key::content;

/// A commit of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Git {
    /// As the script names it.
    shown: String,
    /// As git gets it: a URL, or the real path of a repository of this machine.
    url: String,
    /// What was asked for: a branch, a tag or a commit.
    wanted: String,
    /// The whole name of the branch or tag; none where a commit was asked for.
    name: Option<String>,
    /// The commit's whole id.
    pub commit: String,
}

impl fmt::Display for Git {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.shown, self.wanted)
    }
}

impl Git {
    /// Finds which commit `wanted` is now. A whole commit id needs no network.
    pub async fn resolve(ctx: &RunContext, shown: &str, wanted: &str) -> Result<Git> {
        let (url, local) = address(ctx, shown)?;
        if let Some(path) = &local {
            let path = path.clone();
            let roots = [std::slice::from_ref(&ctx.project), ctx.allowed.as_slice()].concat();
            blocking(ctx, move |_| inside(&path, &roots)).await?;
        }
        let bad =
            wanted.is_empty() || wanted.starts_with('-') || wanted.contains(['\0', '\n', ' ']);
        if bad {
            let message = format!("'{}' is no branch, tag or commit", wanted.escape_debug());
            return Err(Error::invalid_hint("ref", message, "name one, such as main or v1.0"));
        }
        let git = |name, commit: &str| Git {
            shown: shown.into(),
            url: url.clone(),
            wanted: wanted.into(),
            name,
            commit: commit.to_ascii_lowercase(),
        };
        if is_commit(wanted) {
            return Ok(git(None, wanted));
        }
        let mut program = program();
        program.args(["ls-remote", "--", &url]);
        let listed = blocking(ctx, move |cancel| run(program, cancel)).await;
        let listed = listed.map_err(|error| about(shown, error))?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let refs: Vec<(&str, &str)> =
            listed.lines().filter_map(|line| line.split_once('\t')).collect();
        let candidates = [
            format!("refs/tags/{wanted}^{{}}"),
            format!("refs/tags/{wanted}"),
            format!("refs/heads/{wanted}"),
            wanted.to_owned(),
        ];
        for candidate in candidates {
            if let Some((commit, name)) = refs.iter().find(|(_, name)| *name == candidate) {
                return Ok(git(Some(name.trim_end_matches("^{}").to_owned()), commit));
            }
        }
        let names = refs.iter().filter_map(|(_, name)| name.strip_prefix("refs/heads/"));
        let names: Vec<&str> = names.take(5).collect();
        let hint = match names.as_slice() {
            [] => "it has no branch at all".into(),
            names => format!(
                "name a branch, a tag, or a commit by all its 40 digits; of branches there are: {}",
                names.join(", ")
            ),
        };
        Err(Error::invalid_hint("ref", format!("{shown} has no '{wanted}'"), hint))
    }

    /// The commit's tree as a tar stream, fetched when it is not on this machine yet.
    pub async fn archive(&self, ctx: &RunContext) -> Result<Reader> {
        let folder = ctx.host_folder("git")?.join(&content(self.url.as_bytes())[..24]);
        let this = self.clone();
        let tar = blocking(ctx, move |cancel| this.fetch(&folder, cancel)).await;
        let tar = tar.map_err(|error| about(&self.shown, error))?;
        Ok(Box::new(tokio::fs::File::from_std(tar)))
    }

    fn fetch(&self, folder: &Path, cancel: &Cancel) -> Result<File> {
        let failed = |error: std::io::Error| {
            Error::internal(format!("{} can't be used: {error}", folder.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let lock = File::create(folder.with_extension("lock")).map_err(failed)?;
        while lock.try_lock().is_err() {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let git = |args: &[&str]| {
            let mut program = program();
            program.arg("--git-dir").arg(folder).args(args);
            run(program, cancel)
        };
        if !folder.join("HEAD").exists() {
            git(&["init", "--quiet", "--bare"])?;
        }
        let tree = format!("{}^{{tree}}", self.commit);
        let here = || git(&["cat-file", "-e", &tree]).is_ok();
        if !here() {
            let shallow = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", &self.url];
            let what = self.name.as_ref().unwrap_or(&self.commit);
            let fetched = git(&[shallow.as_slice(), &[what]].concat());
            // Not every server gives out a commit by its id, and a branch may have moved on.
            if !here() {
                if cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let all = ["fetch", "--quiet", "--no-tags", "--", &self.url];
                let refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
                fetched
                    .and_then(|_| git(&[all.as_slice(), &refs].concat()))
                    .or_else(|_| git(&[all.as_slice(), &refs].concat()))?;
            }
            if !here() {
                return Err(Error::invalid_hint(
                    "ref",
                    format!("{} has no commit {}", self.shown, self.commit),
                    "it may be on no branch and no tag there",
                ));
            }
        }
        let path = folder.join(format!("{}.tar", self.commit));
        let name = path.display().to_string();
        git(&["-c", "tar.umask=0022", "archive", "--format=tar", "-o", &name, &self.commit])?;
        let mut tar = File::open(&path).map_err(failed)?;
        std::fs::remove_file(&path).map_err(failed)?;
        skip_comment(&mut tar).map_err(failed)?;
        Ok(tar)
    }
}

/// Goes past the header with the commit's id, which git puts in front and which is no file.
fn skip_comment(tar: &mut File) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let mut header = tar::Header::new_old();
    tar.read_exact(header.as_mut_bytes())?;
    let skipped = match header.entry_type() {
        tar::EntryType::XGlobalHeader => 512 + header.entry_size()?.next_multiple_of(512),
        _ => 0,
    };
    tar.seek(SeekFrom::Start(skipped)).map(drop)
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What git gets for what a script names: of this machine only what the script may read, and no
/// helper program that a URL can name.
fn address(ctx: &RunContext, shown: &str) -> Result<(String, Option<PathBuf>)> {
    let local = |path: &str| -> Result<(String, Option<PathBuf>)> {
        let path: PathBuf = super::step::host_path(ctx, path)?;
        if !path.exists() {
            let hint = format!("host paths are relative to {}", ctx.project.display());
            return Err(Error::not_found_hint(Kind::File, path.display().to_string(), hint));
        }
        Ok((path.display().to_string(), Some(path)))
    };
    match shown.split_once("://") {
        Some(("https" | "http" | "ssh" | "git", rest)) if !rest.is_empty() => {
            Ok((shown.into(), None))
        }
        Some(("file", path)) => local(path),
        Some(_) => Err(Error::invalid_hint(
            "url",
            format!("'{shown}' is no address of a git repository"),
            "begin it with https://, ssh://, git:// or file://",
        )),
        None if shown.contains("::") || shown.starts_with('-') => Err(Error::invalid_hint(
            "url",
            format!("'{shown}' is no address of a git repository"),
            "begin it with https://, ssh://, git:// or file://",
        )),
        // user@host:path
        None if shown.split('/').next().is_some_and(|first| first.contains(':')) => {
            Ok((shown.into(), None))
        }
        None => local(shown),
    }
}

/// Refuses a repository in the project that leads out of it: by a link, by a `.git` file, or by
/// objects that it borrows. Git would follow, and the script would read what it may not.
fn inside(path: &Path, roots: &[PathBuf]) -> Result<()> {
    let check = |found: &Path| {
        let inside = roots.iter().any(|root| crate::transfer::confine(found, root).is_ok());
        if inside {
            return Ok(());
        }
        Err(Error::invalid_hint(
            "path",
            format!("the repository {} leads to {}", path.display(), found.display()),
            format!("allow it with --allow-path {}", found.display()),
        ))
    };
    // Where git looks for it, in its order.
    let with_end = PathBuf::from(format!("{}.git", path.display()));
    let places = [path.join(".git"), path.to_owned(), with_end.join(".git"), with_end];
    for place in places.into_iter().filter(|place| place.exists()) {
        check(&place)?;
        let text = |file: &Path| std::fs::read_to_string(file).unwrap_or_default();
        let folder = match place.is_file() {
            false => place.clone(),
            true => match text(&place).strip_prefix("gitdir:") {
                Some(to) => place.parent().unwrap_or(path).join(to.trim()),
                None => continue,
            },
        };
        check(&folder)?;
        let common = text(&folder.join("commondir"));
        let folder = if common.is_empty() { folder } else { folder.join(common.trim()) };
        check(&folder)?;
        let borrowed = text(&folder.join("objects/info/alternates"));
        for line in borrowed.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            check(&folder.join("objects").join(line))?;
        }
        let mut folders = vec![folder.clone(), folder.join("objects"), folder.join("refs")];
        while let Some(one) = folders.pop() {
            for entry in std::fs::read_dir(&one).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_symlink() {
                    check(&entry.path().canonicalize().unwrap_or_else(|_| entry.path()))?;
                } else if kind.is_dir() && one != folder {
                    folders.push(entry.path());
                }
            }
        }
    }
    Ok(())
}

fn program() -> Command {
    let mut program = Command::new("git");
    for variable in [
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_WORK_TREE",
    ] {
        program.env_remove(variable);
    }
    program
        .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .args(["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    program
}

/// Runs it to its end, or until the run is cancelled; what it printed.
fn run(mut program: Command, cancel: &Cancel) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut child = program.spawn().map_err(|error| {
        let hint = "install git: steps that fetch from repositories use it";
        Error::not_found_hint(Kind::Command, format!("git ({error})"), hint)
    })?;
    let read = |from: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut from) = from {
                let _ = from.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let stdout = read(child.stdout.take().map(|out| Box::new(out) as _));
    let stderr = read(child.stderr.take().map(|err| Box::new(err) as _));
    let mut pause = Duration::from_millis(1);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if cancel.is_cancelled() => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::Cancelled);
            }
            Ok(None) => std::thread::sleep(pause),
            Err(error) => return Err(Error::internal(format!("waiting for git: {error}"))),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let (out, said) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    if status.success() {
        return Ok(out);
    }
    let said = String::from_utf8_lossy(&said);
    let lines = said.lines().map(|line| line.trim_start_matches("fatal: ").trim());
    let said: Vec<&str> = lines.filter(|line| !line.is_empty()).take(3).collect();
    Err(Error::Transport { message: said.join("; ") })
}

async fn blocking<T: Send + 'static>(
    ctx: &RunContext,
    work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
) -> Result<T> {
    let cancel = ctx.cancel.clone();
    let done = tokio::task::spawn_blocking(move || work(&cancel)).await;
    done.map_err(|error| Error::internal(error.to_string()))?
}

/// Says which repository an error is about.
fn about(shown: &str, error: Error) -> Error {
    match error {
        Error::Transport { message } => {
            Error::Transport { message: format!("git {shown}: {message}") }
        }
        other => other,
    }
}
