//! Steps that fetch from outside, run scripts, and are run every time.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command as Program;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sandscript::backend::fake::{Effect, Fault, Verb};
use sandscript::sandbox::{Backend, Cancel, Command, Error, Policy, WriteOptions};
use sandscript::workflow::{BaseBuilder, BaseHandle, BaseOptions, Event, Failure, RunOptions};
use sha2::{Digest, Sha256};

use crate::support::{Run, until};

/// Answers every request with these bytes, and counts them.
struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(status: &'static str, body: &'static [u8]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                count.fetch_add(1, Ordering::SeqCst);
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        Server { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run_with_cache(cache: &Path) -> Run {
    let mut run = Run::new();
    run.ctx.cache = Some(cache.into());
    run
}

async fn fetch(run: &Run, url: &str, sha256: &str) -> Result<BaseHandle, Failure> {
    let options = BaseOptions { egress: Some(Policy::None), ..BaseOptions::default() };
    let mut builder = BaseBuilder::open(&run.ctx, "b", options).await?;
    builder.fetch(url, sha256, "/opt/file", WriteOptions::default()).await?;
    builder.finish().await
}

#[tokio::test]
async fn a_file_is_fetched_once_by_the_host() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start("200 OK", b"content");
    let url = format!("{}/file", server.url);
    let run = run_with_cache(cache.path());
    let base = fetch(&run, &url, &sha256(b"content")).await.unwrap();
    assert_eq!(run.read(&base, "/opt/file").await, "content");
    assert_eq!((base.egress, server.asked()), (Policy::None, 1));
    assert_eq!(fetch(&run, &url, &sha256(b"content")).await.unwrap().hits, 1);
    // Another backend has no such step, and the file is still on this machine.
    let other = run_with_cache(cache.path());
    assert_eq!(fetch(&other, &url, &sha256(b"content")).await.unwrap().hits, 0);
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn another_digest_and_a_missing_file_build_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let run = run_with_cache(cache.path());
    let server = Server::start("200 OK", b"something else");
    let failure = fetch(&run, &server.url.clone(), &sha256(b"content")).await.unwrap_err();
    assert!(
        matches!(&failure, Failure::Error(Error::InvalidInput { what, .. }) if what == "sha256")
    );
    assert!(failure.to_string().contains("expected"), "{failure}");
    let server = Server::start("404 Not Found", b"");
    let failure = fetch(&run, &server.url, &sha256(b"content")).await.unwrap_err();
    assert!(matches!(failure, Failure::Error(Error::NotFound { .. })), "{failure}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = fetch(&run, &format!("http://{closed}/x"), &sha256(b"")).await.unwrap_err();
    assert!(matches!(failure, Failure::Error(Error::Transport { .. })), "{failure}");
    assert_eq!(run.names().await, [""; 0]);
}

fn git(folder: &Path, args: &[&str]) -> String {
    let done = Program::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
        .args(["-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(done.status.success(), "{args:?}: {done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A bare repository in the project, and where it is worked on.
struct Repository {
    work: tempfile::TempDir,
}

impl Repository {
    fn new(run: &Run) -> Repository {
        let work = tempfile::tempdir().unwrap();
        git(run.project.path(), &["init", "--quiet", "--bare", "lib.git"]);
        git(work.path(), &["init", "--quiet"]);
        let to = run.project.path().join("lib.git").display().to_string();
        git(work.path(), &["remote", "add", "origin", &to]);
        Repository { work }
    }

    fn commit(&self, text: &str) -> String {
        std::fs::write(self.work.path().join("file"), text).unwrap();
        git(self.work.path(), &["add", "--all"]);
        git(self.work.path(), &["commit", "--quiet", "--message", text]);
        git(self.work.path(), &["push", "--quiet", "--tags", "origin", "HEAD:main"]);
        git(self.work.path(), &["rev-parse", "HEAD"])
    }
}

async fn clone(run: &Run, url: &str, wanted: &str) -> Result<BaseHandle, Failure> {
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await?;
    builder.git(url, wanted, "/opt/lib", None).await?;
    builder.finish().await
}

#[tokio::test]
async fn a_branch_counts_by_its_commit() {
    let cache = tempfile::tempdir().unwrap();
    let mut run = run_with_cache(cache.path());
    let repository = Repository::new(&run);
    let first = repository.commit("one");
    git(repository.work.path(), &["tag", "-a", "v1", "-m", "v1"]);
    let base = clone(&run, "lib.git", "main").await;
    let base = base.unwrap();
    assert_eq!(run.read(&base, "/opt/lib/file").await, "one");
    assert_eq!(clone(&run, "lib.git", "main").await.unwrap().hits, 1);
    // Only the message is new.
    git(repository.work.path(), &["commit", "--quiet", "--allow-empty", "--message", "empty"]);
    let second = repository.commit("two");
    run.told();
    let base = clone(&run, "lib.git", "main").await.unwrap();
    assert_eq!((base.hits, run.read(&base, "/opt/lib/file").await.as_str()), (0, "two"));
    let told = run.told();
    let why = told.iter().find_map(|event| match event {
        Event::StepStarted { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(why.unwrap(), format!("commit changed: `{first}` → `{second}`"));
    // An annotated tag is the commit it stands on, and that is cached.
    assert_eq!(clone(&run, "lib.git", "v1").await.unwrap().hits, 1);
    assert_eq!(clone(&run, "lib.git", &first).await.unwrap().hits, 1);
    assert_eq!(clone(&run, "lib.git", &first.to_uppercase()).await.unwrap().hits, 1);

    // A whole commit needs its repository no more.
    std::fs::rename(run.project.path().join("lib.git"), run.project.path().join("gone.git"))
        .unwrap();
    std::fs::create_dir(run.project.path().join("lib.git")).unwrap();
    let mut other = run_with_cache(cache.path());
    std::mem::swap(&mut other.project, &mut run.project);
    other.ctx.project = run.ctx.project.clone();
    let base = clone(&other, "lib.git", &first).await.unwrap();
    assert_eq!((base.hits, other.read(&base, "/opt/lib/file").await.as_str()), (0, "one"));
    let failure = clone(&other, "lib.git", "main").await.unwrap_err();
    assert!(matches!(failure, Failure::Error(Error::Transport { .. })), "{failure}");
    assert!(failure.to_string().starts_with("lost contact: git lib.git: "), "{failure}");
}

#[tokio::test]
async fn an_old_commit_is_found_among_all() {
    let cache = tempfile::tempdir().unwrap();
    let run = run_with_cache(cache.path());
    let repository = Repository::new(&run);
    let first = repository.commit("one");
    repository.commit("two");
    let base = clone(&run, "file://lib.git", &first).await.unwrap();
    assert_eq!(run.read(&base, "/opt/lib/file").await, "one");
    let failure = clone(&run, "lib.git", &"a".repeat(40)).await.unwrap_err();
    assert!(failure.to_string().contains("lib.git"), "{failure}");
    run.only_finished_bases().await;
}

#[tokio::test]
async fn a_repository_that_leads_out_of_the_project_is_refused() {
    let (cache, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut run = run_with_cache(cache.path());
    git(outside.path(), &["init", "--quiet"]);
    git(outside.path(), &["commit", "--quiet", "--allow-empty", "--message", "private"]);
    let project = run.project.path().to_owned();
    let private = outside.path().join(".git");
    std::fs::create_dir(project.join("file")).unwrap();
    std::fs::write(project.join("file/.git"), format!("gitdir: {}\n", private.display())).unwrap();
    git(&project, &["init", "--quiet", "--bare", "link"]);
    std::fs::remove_dir_all(project.join("link/refs")).unwrap();
    std::os::unix::fs::symlink(private.join("refs"), project.join("link/refs")).unwrap();
    git(&project, &["init", "--quiet", "--bare", "borrows"]);
    let borrowed = private.join("objects").display().to_string();
    std::fs::write(project.join("borrows/objects/info/alternates"), borrowed).unwrap();
    for name in ["file", "link", "borrows"] {
        let failure = clone(&run, name, "main").await.unwrap_err();
        assert!(failure.to_string().contains("leads to"), "{name}: {failure}");
        assert!(failure.hint().unwrap().contains("--allow-path"), "{name}");
    }
    run.ctx.allowed.push(outside.path().canonicalize().unwrap());
    clone(&run, "file", "main").await.unwrap();
}

/// Two steps and a volatile one, between them or behind.
async fn build(run: &Run, between: bool, last: &str) -> Result<BaseHandle, Failure> {
    let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await?;
    let volatile = || RunOptions { volatile: true, ..RunOptions::default() };
    let work = async {
        builder.run(Command::shell("echo 1 >> /log")).await?;
        if between {
            builder.run_with(Command::shell("echo now >> /log"), volatile()).await?;
        }
        builder.run(Command::shell(last)).await?;
        if !between {
            builder.run_with(Command::shell("echo now >> /log"), volatile()).await?;
        }
        Ok(())
    };
    let done: Result<(), Failure> = work.await;
    match done {
        Ok(()) => builder.finish().await,
        Err(failure) => {
            builder.abandon().await;
            Err(failure)
        }
    }
}

#[tokio::test]
async fn a_volatile_step_is_run_in_its_place_when_a_later_one_is_done() {
    let run = Run::new();
    let base = build(&run, true, "echo 2 >> /log").await.unwrap();
    assert!(!base.volatile, "all of it is in the cache");
    assert_eq!(run.read(&base, "/log").await, "1\nnow\n2\n");
    run.only_finished_bases().await;
    // A later step changed: it is run again, before that one.
    let base = build(&run, true, "echo 3 >> /log").await.unwrap();
    assert_eq!((base.hits, run.read(&base, "/log").await.as_str()), (1, "1\nnow\n3\n"));
    // Without it the same steps are cached.
    assert_eq!(run.build("b", &["echo 1 >> /log", "echo 2 >> /log"]).await.unwrap().hits, 2);
}

#[tokio::test]
async fn a_volatile_step_behind_cached_ones_is_run_in_a_sandbox_of_the_run() {
    let mut run = Run::new();
    for hits in [0, 2] {
        run.told();
        let base = build(&run, false, "echo 2 >> /log").await.unwrap();
        assert_eq!((base.hits, base.steps, base.volatile), (hits, 3, true));
        assert_eq!(run.read(&base, "/log").await, "1\n2\nnow\n");
        let info = run.fake.get(&base.sandbox, &Cancel::new()).await.unwrap();
        assert_eq!(info.owner, Some(run.ctx.owner.clone()));
        assert_eq!(info.labels["sandscript.kind"], "volatile");
        let told = run.told();
        let reason = |event: &Event| match event {
            Event::StepStarted { step: 3, reason, .. } => Some(reason.clone()),
            _ => None,
        };
        let reason = told.iter().find_map(reason).unwrap();
        assert_eq!(reason, "it is volatile: it is run every time");
    }
    run.fake.end_run("run-a");
    run.fake.gc(false, &Cancel::new()).await.unwrap();
    run.only_finished_bases().await;
    assert_eq!(run.names().await.len(), 1);
}

#[tokio::test]
async fn a_volatile_step_that_fails_or_is_cancelled_leaves_the_cached_ones() {
    let run = Run::new();
    run.fake.inject(Fault::new(Verb::Spawn, Effect::Hang).nth(3));
    let building = async {
        let failure = build(&run, false, "echo 2 >> /log").await.unwrap_err();
        assert!(failure.is_cancel(), "{failure}");
    };
    let cancel = async {
        until("the third command", async || run.fake.count(Verb::Spawn) == 3).await;
        run.ctx.cancel.cancel();
    };
    tokio::join!(building, cancel);
    run.only_finished_bases().await;
    let again = Run::on(run.fake.clone(), "run-b");
    assert_eq!(build(&again, false, "echo 2 >> /log").await.unwrap().hits, 2);
}

#[tokio::test]
async fn a_script_step_counts_by_its_content() {
    let run = Run::new();
    let file = run.project.path().join("setup.sh");
    let build = async |name: &str| {
        let mut builder = BaseBuilder::open(&run.ctx, "b", BaseOptions::default()).await.unwrap();
        let like = Command::argv(["x"]);
        builder.script(name, vec!["a".into()], like, RunOptions::default()).await.unwrap();
        builder.finish().await.unwrap()
    };
    std::fs::write(&file, "echo $1 > /f").unwrap();
    let base = build("setup.sh").await;
    assert_eq!(run.read(&base, "/f").await, "a\n");
    std::fs::rename(&file, run.project.path().join("other.sh")).unwrap();
    assert_eq!(build("other.sh").await.hits, 1, "its name does not count");
    std::fs::write(&file, "echo more $1 > /f").unwrap();
    let base = build("setup.sh").await;
    assert_eq!((base.hits, run.read(&base, "/f").await.as_str()), (0, "more a\n"));
}
