use super::*;
use crate::backend::fake::FakeBackend;
use crate::sandbox::{Backend, Cancel, Reader, SnapshotSpec, Spec, WriteOptions};

fn asker<'a>(backend: &'a FakeBackend, cancel: &'a Cancel) -> Asker<'a> {
    let (owner, env, user) = (None, BTreeMap::new(), None);
    Asker { backend, cancel, owner, env, user, dry: false, place: "fake".into() }
}

fn image() -> Origin {
    Origin::Image { image: None, sha256: None }
}

fn profile(forbid: &[&str]) -> Profile {
    let forbid = forbid.iter().map(|rule| rule.parse().unwrap()).collect();
    Profile { name: "p".into(), egress: Some(Asked::word("git").unwrap()), forbid }
}

fn texts(policy: &Policy) -> Vec<String> {
    policy.rules().map(Rule::to_string).collect()
}

async fn write(backend: &FakeBackend, name: &str, path: &str, text: &'static str) {
    let options = WriteOptions { parents: true, ..WriteOptions::default() };
    let content: Reader = Box::new(text.as_bytes());
    backend.write(name, path, content, &options, &Cancel::new()).await.unwrap();
}

#[tokio::test]
async fn a_base_says_where_it_fetches_from_and_a_guest_does_not() {
    let (backend, cancel) = (FakeBackend::new(), Cancel::new());
    let mut base = Spec::new("base-py");
    base.labels = [("sandscript.kind".to_owned(), "base".to_owned())].into();
    backend.create(&base, &cancel).await.unwrap();
    let conf = "[global]\nindex-url = https://pip.mirror.test/simple\n";
    write(&backend, "base-py", "/etc/pip.conf", conf).await;
    write(&backend, "base-py", "/etc/apt/sources.list", "deb http://apt.mirror.test/d x main\n")
        .await;
    backend.snapshot("base-py", &SnapshotSpec::new("done"), &cancel).await.unwrap();
    let catalog = Catalog::default().registries(vec!["own.test@10.0.0.0/8".parse().unwrap()], true);
    let asker = asker(&backend, &cancel);
    let origin = Origin::Base { sandbox: "base-py".into(), label: "done".into() };
    let asked = Asked::merged(Some("registries"), ["a.test"], ["b.test"]).unwrap();
    let found = catalog.resolve(&asked, &asker, &origin).await.unwrap();
    let wanted = [
        "deny b.test",
        "a.test",
        "own.test@10.0.0.0/8",
        "apt.mirror.test:80",
        "pip.mirror.test:443",
    ];
    assert_eq!(texts(&found.policy), wanted);
    // Nothing is left of those that were asked.
    assert_eq!(backend.list(&cancel).await.unwrap().len(), 1);

    let clone = crate::sandbox::CloneSpec {
        egress: Some(found.policy.clone()),
        ..crate::sandbox::CloneSpec::of("done", "box")
    };
    Backend::clone(&backend, "base-py", &clone, &cancel).await.unwrap();
    write(&backend, "box", "/etc/pip.conf", "[global]\nindex-url = https://evil.test/\n").await;
    let own = Origin::Sandbox("box".into());
    let again = catalog.resolve(&asked, &asker, &own).await.unwrap();
    assert_eq!(again.policy, found.policy);
    // Another preset, which it has no answer for: its base is asked.
    let git = Asked::word("agent").unwrap();
    let policy = catalog.resolve(&git, &asker, &own).await.unwrap().policy;
    assert!(texts(&policy).contains(&"pip.mirror.test:443".to_owned()));
    assert!(!texts(&policy).iter().any(|rule| rule.contains("evil")));
    let refreshed = catalog.refresh(&found.policy, &asker, &own).await.unwrap();
    assert_eq!(changes(&found.policy, &refreshed.policy), Vec::<String>::new());
    // Only who asks for it by name gets what the guest says now.
    let guest = Origin::Guest("box".into());
    let refreshed = catalog.refresh(&found.policy, &asker, &guest).await.unwrap();
    assert_eq!(
        changes(&found.policy, &refreshed.policy),
        ["- pip.mirror.test:443", "+ evil.test:443"]
    );
    assert_eq!(backend.list(&cancel).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_an_image_says_is_kept() {
    let (backend, cancel) = (FakeBackend::new(), Cancel::new());
    let folder = tempfile::tempdir().unwrap();
    let catalog = || Catalog::default().folder(Some(folder.path().to_owned()));
    let asked = Asked::word("registries").unwrap();
    let asker = asker(&backend, &cancel);
    let first = catalog().resolve(&asked, &asker, &image()).await.unwrap();
    assert_eq!(
        first.notes,
        ["no tool here says where it fetches from, so 'registries' allows nothing"]
    );
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let source = r#"{"sources":[{"tool":"pip","rule":"kept.test:443"}],"notes":[]}"#;
    std::fs::write(&file, source).unwrap();
    let second = catalog().resolve(&asked, &asker, &image()).await.unwrap();
    assert_eq!(texts(&second.policy), ["kept.test:443"]);
    let refreshed = catalog().refresh(&second.policy, &asker, &image()).await.unwrap();
    assert_eq!(texts(&refreshed.policy), Vec::<String>::new());
    let off = catalog().registries(vec!["only.test".parse().unwrap()], false);
    let own = off.resolve(&asked, &asker, &image()).await.unwrap();
    assert_eq!(texts(&own.policy), ["only.test"]);
}

#[tokio::test]
async fn a_private_mirror_is_the_operators_to_open() {
    let (backend, cancel) = (FakeBackend::new(), Cancel::new());
    let mut asker = asker(&backend, &cancel);
    asker.env = [("PIP_INDEX_URL".to_owned(), "http://10.1.2.3:8080/simple".to_owned())].into();
    let asked = Asked::word("registries").unwrap();
    let closed = Catalog::default().resolve(&asked, &asker, &image()).await.unwrap();
    assert_eq!(texts(&closed.policy), Vec::<String>::new());
    assert!(closed.notes[0].starts_with("pip fetches from 10.1.2.3:8080, a private address"));
    let catalog = Catalog::default().registries(vec!["10.1.0.0/16".parse().unwrap()], true);
    let open = catalog.resolve(&asked, &asker, &image()).await.unwrap();
    assert_eq!((texts(&open.policy), open.notes), (vec!["10.1.0.0/16".to_owned()], Vec::new()));
}

#[tokio::test]
async fn a_profile_holds_against_all() {
    let (backend, cancel) = (FakeBackend::new(), Cancel::new());
    let catalog =
        Catalog::default().profile(Some(profile(&["*.githubusercontent.com", "10.0.0.0/8"])));
    let asker = asker(&backend, &cancel);
    let policy = catalog.resolve(&catalog.standard(), &asker, &image()).await.unwrap().policy;
    assert_eq!(texts(&policy)[..2], ["deny *.githubusercontent.com", "deny 10.0.0.0/8"]);
    assert!(policy.to_string().starts_with("git ("));
    let error = catalog.allow(&policy, &"x.githubusercontent.com".parse().unwrap()).unwrap_err();
    insta::assert_snapshot!(error, @"egress: the profile 'p' forbids '*.githubusercontent.com'");
    let wider = catalog.allow(&policy, &"*".parse().unwrap()).unwrap();
    assert_eq!(texts(&wider)[..2], ["deny *.githubusercontent.com", "deny 10.0.0.0/8"]);
    assert!(texts(&wider).contains(&"*".to_owned()));
    let error = catalog.resolve(&Asked::Unrestricted, &asker, &image()).await.unwrap_err();
    insta::assert_snapshot!(error, @"egress: the profile 'p' forbids some hosts, so nothing is unrestricted");
    assert_eq!(catalog.resolve(&Asked::None, &asker, &image()).await.unwrap().policy, Policy::None);
}

#[tokio::test]
async fn what_has_no_preset_can_not_be_refreshed() {
    let (backend, cancel) = (FakeBackend::new(), Cancel::new());
    let asker = asker(&backend, &cancel);
    let policy = Policy::allowlist(["a.test"]).unwrap();
    let error = Catalog::default().refresh(&policy, &asker, &image()).await.unwrap_err();
    insta::assert_snapshot!(error, @"egress: the policy 'allowlist (a.test)' has no preset that could be looked up again");
}
