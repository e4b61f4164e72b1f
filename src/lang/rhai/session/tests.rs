use std::sync::Arc;

use super::*;
use crate::backend::fake::FakeBackend;
use crate::lang::Language as _;
use crate::sandbox::Cancel;

fn host() -> Arc<Host> {
    let folder = std::env::temp_dir();
    Host::builder(Arc::new(FakeBackend::new())).project(folder).build().unwrap()
}

struct Talk {
    host: Arc<Host>,
    session: Arc<dyn Session>,
}

impl Talk {
    fn new() -> Talk {
        Talk::on(host())
    }

    fn on(host: Arc<Host>) -> Talk {
        let session = crate::lang::rhai::Rhai.session(&host).unwrap();
        Talk { host, session }
    }

    async fn say_as(&self, name: &str, text: &str) -> String {
        let ctx = self.host.start_one(&Cancel::new());
        match self.session.eval(&Source::new(name, text), &ctx).await {
            Ok(value) => value.quoted(),
            Err(error) => error.render(),
        }
    }

    async fn say(&self, text: &str) -> String {
        self.say_as(TYPED, text).await
    }
}

#[test]
fn what_goes_on() {
    let talk = Talk::new();
    talk.session.set("x", 1.into());
    let goes_on = [
        "f(",
        "f(1,",
        "f(1",
        "let y =",
        "let y = \n",
        "let",
        "1 +",
        "\"a\" +",
        "!",
        "-",
        "[1, 2",
        "x = [",
        "#{ a: 1",
        "#{ a:",
        "#{ a: 1,",
        "if true {",
        "if true { 1 } else",
        "fn f(a) {",
        "fn",
        "fn f",
        "fn f(",
        "let f = |a| {",
        "f(|b| {\n  b.run(1);",
        "`text",
        "`a ${1",
        "f(`",
        "print(`a\nb",
        "x\n.",
        "/* comment",
        "/* a /* b */",
        "switch 1 {",
        "while",
        "for a in",
        "{ let a = 1;",
        "try {",
        "try { 1 }",
        "do {",
        "do { 1 } while",
        "import",
        "import \"a\" as",
        "return f(",
        "x.f(\n  1",
        "if x ==",
    ];
    let whole = [
        "",
        "1",
        "let y = 1",
        "let y = 1;",
        "f(1)",
        "x",
        "f(1))",
        "let y = )",
        "\"text",
        "\"text\nmore",
        "]",
        "}",
        "1 2",
        "let = 3",
        "fn f(a) }",
        "// (",
        "/* ( */",
        "if true { 1 }",
        "f(\"(\")",
        "#",
        "let y = @",
        "f(1 2",
        "[1 2",
        "x y",
        "`a`",
        "f(]",
        "let z = y",
        "f(y",
        "'a",
    ];
    let wrong = |texts: &[&'static str], goes_on: bool| -> Vec<&str> {
        let all = texts.iter().copied();
        all.filter(|text| talk.session.incomplete(text) != goes_on).collect()
    };
    assert_eq!((wrong(&goes_on, true), wrong(&whole, false)), (vec![], vec![]));
}

#[tokio::test]
async fn declarations_live_on() {
    let talk = Talk::new();
    assert_eq!(talk.say("let x = 40;").await, "()");
    assert_eq!(talk.say("fn double(n) { n * 2 }").await, "()");
    assert_eq!(talk.say("x += 1; double(x)").await, "82");
    assert_eq!(talk.say("let add = |n| n + x;").await, "()");
    assert_eq!(talk.say("x = 1; add.call(2)").await, "3");
    assert_eq!(talk.say("[1, 2].map(add)").await, "[2, 3]");
    assert_eq!(talk.say("fn double(n) { n * 20 }").await, "()");
    assert_eq!(talk.say("double(2)").await, "40");
    assert_eq!(talk.say("const y = 1;").await, "()");
    assert_eq!(talk.session.names(), ["add", "double", "x", "y"]);
    assert_eq!(talk.session.get("x"), Some(1.into()));
    talk.session.set("x", 7.into());
    assert_eq!(talk.say("x").await, "7");
    assert_eq!(talk.say("timestamp()").await, "\"<timestamp>\"");
    for number in 0..200 {
        talk.say(&format!("let x = {number};")).await;
    }
    assert_eq!(talk.say("add.call(0) + x").await, "206");
}

#[tokio::test]
async fn handles_and_callbacks_live_on() {
    let talk = Talk::new();
    talk.say("let box = sandbox(\"a\");").await;
    talk.say("let seen = [];").await;
    talk.say("let note = |line| seen.push(line);").await;
    talk.say("let p = box.spawn(\"echo one\"); p.on_output(note);").await;
    assert_eq!(talk.say("p.wait(); seen").await, "[\"one\"]");
    assert_eq!(talk.host.live(), ["a"]);
    talk.host.finish().await;
}

#[tokio::test]
async fn errors_say_where() {
    let talk = Talk::new();
    talk.say("1;\n2").await;
    insta::assert_snapshot!(talk.say("let y = sandbxo(\"a\");").await, @r#"
    error: there is no function 'sandbxo'
      --> repl:3:9
       |
     3 | let y = sandbxo("a");
       |         ^^^^^^^
      hint: did you mean 'sandbox'?
    "#);
    insta::assert_snapshot!(talk.say("let z = (1 + ;").await, @"
    error: unexpected ';'
      --> repl:4:14
       |
     4 | let z = (1 + ;
       |              ^
    ");
    insta::assert_snapshot!(talk.say("fn f(n) {\n  n.nope()\n}").await, @"()");
    insta::assert_snapshot!(talk.say("f(1)").await, @"
    error: int has no function 'nope'
      --> repl:6:5
       |
     6 |   n.nope()
       |     ^^^^
      in f(), called at repl:8:1
    ");
    insta::assert_snapshot!(talk.say_as("setup.rhai", "fn g(n) {\n  throw n;\n}\nlet set = 1;").await, @"()");
    insta::assert_snapshot!(talk.say("set;\ng(\"no\")").await, @"
    error: no
      --> setup.rhai:2:3
       |
     2 |   throw n;
       |   ^^^^^
      in g(), called at repl:10:1
    ");
    insta::assert_snapshot!(talk.say("let error = (); try { open(\"no\") } catch (e) { error = e; }").await, @"()");
    insta::assert_snapshot!(talk.say("throw error").await, @r#"
    error: sandbox 'no' not found
      --> repl:12:1
        |
     12 | throw error
        | ^^^^^
      hint: sandbox("no") makes it
    "#);
    insta::assert_snapshot!(talk.say("sett").await, @"
    error: there is no variable 'sett'
      --> repl:13:1
        |
     13 | sett
        | ^^^^
      hint: did you mean 'set'?
    ");
}

#[tokio::test]
async fn what_was_declared_before_a_failure_stays() {
    let talk = Talk::new();
    talk.say("let a = 1; fn f() { 2 } throw \"no\"; let b = 2;").await;
    assert_eq!(talk.say("a + f()").await, "3");
    assert_eq!(talk.session.names(), ["a", "f"]);
}

#[tokio::test]
async fn one_entry_is_stopped() {
    let cancel = Cancel::new();
    let ready = cancel.clone();
    let host = Host::builder(Arc::new(FakeBackend::new())).print(move |_| ready.cancel());
    let talk = Talk::on(host.project(std::env::temp_dir()).build().unwrap());
    let ctx = talk.host.start_one(&cancel);
    let text = "let n = 0; loop { try { n += 1; print(n); sleep(\"60s\"); } catch { } }";
    let result = talk.session.eval(&Source::new(TYPED, text), &ctx).await;
    assert_eq!(result.unwrap_err().code(), "cancelled");
    assert_eq!(talk.say("n > 0").await, "true");
}

#[tokio::test]
async fn statements() {
    let talk = Talk::new();
    let all = ["1 + 1", "let f = |x| { x }", "fn f() { 1 }", "f() // why", "f();"];
    let script: Vec<String> = all.iter().map(|entry| talk.session.statement(entry)).collect();
    assert_eq!(script, ["1 + 1;", "let f = |x| { x };", "fn f() { 1 }", "f() // why\n;", "f();"]);
    assert_eq!(talk.say(&script.join("\n")).await, "1");
}

#[tokio::test]
async fn very_many_lines() {
    let talk = Talk::new();
    talk.say("fn f() { 1 }").await;
    talk.say(&"\n".repeat(59_990)).await;
    talk.say(&"\n".repeat(20)).await;
    insta::assert_snapshot!(talk.say("throw 1").await, @"
    error: 1
      --> repl:60014:1
           |
     60014 | throw 1
           | ^^^^^
    ");
    assert_eq!(talk.say("f()").await, "1");
}
