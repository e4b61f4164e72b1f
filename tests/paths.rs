//! Host paths that a script names stay inside the project folder and what was allowed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use sandscript::backend::fake::FakeBackend;
use sandscript::sandbox::Capability;
use sandscript::{Host, Source, run};

async fn script(project: &Path, allow: Option<&Path>, text: &str) -> String {
    let backend = FakeBackend::builder().with(Capability::Mounts).build();
    let mut host = Host::builder(Arc::new(backend)).project(project).print(|_| ());
    if let Some(allow) = allow {
        host = host.allow(allow);
    }
    let text = format!("let box = sandbox(\"a\");\nbox.write(\"/tmp/f\", \"guest\");\n{text}");
    match run(&Source::new("x.rhai", text), &host.build().unwrap()).await.result {
        Ok(value) => value.to_string(),
        Err(error) => error.render(),
    }
}

struct Folders {
    root: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("project")).unwrap();
        std::fs::create_dir(root.path().join("outside")).unwrap();
        std::fs::write(root.path().join("outside/secret"), "secret").unwrap();
        symlink("../outside", root.path().join("project/link")).unwrap();
        symlink("../outside/secret", root.path().join("project/file")).unwrap();
        Folders { root }
    }

    fn project(&self) -> std::path::PathBuf {
        self.root.path().join("project")
    }

    fn outside(&self) -> std::path::PathBuf {
        self.root.path().join("outside")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_lead_nowhere() {
    let folders = Folders::new();
    for text in [
        "box.push(\"link\", \"/x\");",
        "box.push(\"link/secret\", \"/x\");",
        "box.push(\"file\", \"/x\");",
        "box.push(\"../outside/secret\", \"/x\");",
        "box.push(\"link/../../outside\", \"/x\");",
        "box.pull(\"/tmp/f\", \"link/new\");",
        "box.pull(\"/tmp/f\", \"file\");",
        "box.pull(\"/tmp/f\", \"link/\");",
        "box.pull(\"/tmp\", \"link/tree\");",
        "base(\"b\", |b| b.copy(\"link/secret\", \"/x\"));",
        "sandbox(\"m\", #{ mounts: [#{ source: \"link\", target: \"/x\" }] });",
    ] {
        let shown = script(&folders.project(), None, text).await;
        assert!(shown.contains("lies outside the project folder"), "{text}: {shown}");
        assert!(shown.contains("--allow-path"), "{text}: {shown}");
    }
    assert_eq!(std::fs::read_to_string(folders.outside().join("secret")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(folders.outside()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_tree_keeps_its_links_as_links() {
    let folders = Folders::new();
    let text =
        "box.push(\".\", \"/src\"); [box.stat(\"/src/link\").kind, box.stat(\"/src/file\").target]";
    let shown = script(&folders.project(), None, text).await;
    assert_eq!(shown, "[\"symlink\", \"../outside/secret\"]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_allowed_is_reached() {
    let folders = Folders::new();
    let outside = folders.outside();
    let text =
        "box.push(\"link/secret\", \"/x\"); box.pull(\"/x\", \"link/copy\"); box.read(\"/x\")";
    assert_eq!(script(&folders.project(), Some(&outside), text).await, "secret");
    assert_eq!(std::fs::read_to_string(outside.join("copy")).unwrap(), "secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_the_guest_made_is_not_followed() {
    let folders = Folders::new();
    let text = format!(
        "box.mkdir(\"/t\"); box.run([\"ln\", \"-s\", \"{}\", \"/t/d\"]); box.pull(\"/t\", \"got\"); \
         box.run(\"rm /t/d\"); box.write(\"/t/d/secret\", \"planted\", #{{ parents: true }}); \
         box.pull(\"/t\", \"got\");",
        folders.outside().display()
    );
    script(&folders.project(), None, &text).await;
    assert_eq!(std::fs::read_to_string(folders.outside().join("secret")).unwrap(), "secret");
}
