use std::sync::Arc;

use super::*;
use crate::backend::fake::FakeBackend;
use crate::lang::Language as _;
use crate::sandbox::Cancel;

struct Talk {
    host: Arc<Host>,
    session: Arc<dyn Session>,
}

impl Talk {
    fn new() -> Talk {
        let host = Host::builder(Arc::new(FakeBackend::new()));
        Talk::on(host.project(std::env::temp_dir()).build().unwrap())
    }

    fn on(host: Arc<Host>) -> Talk {
        let session = crate::lang::lua::Lua.session(&host).unwrap();
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

#[tokio::test]
async fn what_goes_on() {
    let talk = Talk::new();
    let goes_on = [
        "f(",
        "f(1,",
        "x =",
        "local",
        "local x =",
        "1 +",
        "{ 1, 2",
        "if x then",
        "for i = 1, 3 do",
        "function f(a)",
        "f(function(b)",
        "[[text",
        "--[[ comment",
        "x = {",
        "while true do",
        "repeat",
        "x.",
        "x:",
        "x:f",
        "f(1",
        "\"a\" ..",
        "not",
    ];
    let whole = [
        "",
        "1",
        "x",
        "x = 1",
        "local x = 1",
        "f(1)",
        "f(1))",
        "x = )",
        "\"text",
        "]]",
        "end",
        "1 2",
        "x y",
        "-- (",
        "if x then end",
        "function f(a) end",
        "{ 1 }",
        "@",
    ];
    let wrong = |texts: &[&'static str], goes_on: bool| -> Vec<&str> {
        let all = texts.iter().copied();
        all.filter(|text| talk.session.incomplete(text) != goes_on).collect()
    };
    assert_eq!((wrong(&goes_on, true), wrong(&whole, false)), (vec![], vec![]));
}

#[tokio::test]
async fn globals_live_on() {
    let talk = Talk::new();
    assert_eq!(talk.say("x = 40").await, "()");
    assert_eq!(talk.say("function double(n) return n * 2 end").await, "()");
    assert_eq!(talk.say("x = x + 1 return double(x)").await, "82");
    assert_eq!(talk.say("x").await, "41");
    assert_eq!(talk.say("add = function(n)\n  return n + x\nend").await, "()");
    assert_eq!(talk.say("x = 1 return add(2)").await, "3");
    assert_eq!(talk.say("local y = 2 return y").await, "2");
    insta::assert_snapshot!(talk.say("y").await, @"
    error: there is no variable 'y'
      --> repl:10:1
        |
     10 | y
        | ^
      hint: declare it with: y = … (a local ends with its entry)
    ");
    assert_eq!(talk.say("box = sandbox(\"a\")").await, "()");
    assert_eq!(talk.say("box:run(\"echo hi\").stdout").await, "\"hi\\n\"");
    assert_eq!(talk.session.names(), ["add", "box", "double", "x"]);
    assert_eq!(talk.session.get("x"), Some(1.into()));
    assert!(matches!(talk.session.get("box"), Some(Value::Handle(_))));
    talk.session.set("z", 7.into());
    assert_eq!(talk.session.get("z"), Some(7.into()));
    assert_eq!(talk.say("z + 1").await, "8");
    talk.host.finish().await;
}

#[tokio::test]
async fn errors_say_where() {
    let talk = Talk::new();
    talk.say("x = 1\nx = 2").await;
    insta::assert_snapshot!(talk.say("y = sandbxo(\"a\")").await, @r#"
    error: there is no function 'sandbxo'
      --> repl:3:5
       |
     3 | y = sandbxo("a")
       |     ^^^^^^^
      hint: did you mean 'sandbox'?
    "#);
    insta::assert_snapshot!(talk.say("z = (1 + )").await, @"
    error: unexpected symbol near ')'
      --> repl:4:10
       |
     4 | z = (1 + )
       |          ^
    ");
    insta::assert_snapshot!(talk.say("function f(n)\n  open(n)\nend").await, @"()");
    insta::assert_snapshot!(talk.say("f(\"nope\")").await, @r#"
    error: sandbox 'nope' not found
      --> repl:6:3
       |
     6 |   open(n)
       |   ^^^^
      in f(), called at repl:8:1
      hint: sandbox("nope") makes it
    "#);
    insta::assert_snapshot!(talk.say_as("setup.lua", "function g(n)\n  error(n)\nend\nset = 1").await, @"()");
    insta::assert_snapshot!(talk.say("g(\"no\")").await, @"
    error: no
      --> setup.lua:2:3
       |
     2 |   error(n)
       |   ^^^^^
      in g(), called at repl:9:1
    ");
    insta::assert_snapshot!(talk.say("sett").await, @"
    error: there is no variable 'sett'
      --> repl:10:1
        |
     10 | sett
        | ^^^^
      hint: did you mean 'set'?
    ");
}

#[tokio::test]
async fn one_entry_is_stopped() {
    let cancel = Cancel::new();
    let ready = cancel.clone();
    let host = Host::builder(Arc::new(FakeBackend::new())).print(move |_| ready.cancel());
    let talk = Talk::on(host.project(std::env::temp_dir()).build().unwrap());
    let ctx = talk.host.start_one(&cancel);
    let text = "n = 0 while true do pcall(function() n = n + 1 print(n) sleep(\"60s\") end) end";
    let result = talk.session.eval(&Source::new(TYPED, text), &ctx).await;
    assert_eq!(result.unwrap_err().code(), "cancelled");
    assert_eq!(talk.say("n > 0").await, "true");
}

#[tokio::test]
async fn statements() {
    let talk = Talk::new();
    let all = ["1 + 1", "x = 1", "return 5", "x -- why", "tostring(x)"];
    let script: Vec<String> = all.iter().map(|entry| talk.session.statement(entry)).collect();
    assert_eq!(script, ["_ = 1 + 1", "x = 1", "_ = 5", "_ = x -- why", "tostring(x)"]);
    assert_eq!(talk.say(&script.join("\n")).await, "()");
}
