//! `sandscript repl` without a terminal: lines of another program.

use std::io::Write;
use std::process::Stdio;

use insta::assert_snapshot;

use crate::environment::{Run, TestEnvironment};

fn say(lines: &str) -> Run {
    say_in(&TestEnvironment::fake(), lines)
}

pub fn say_in(environment: &TestEnvironment, lines: &str) -> Run {
    environment.run_with(["repl"], lines.as_bytes())
}

#[test]
fn lines_that_work() {
    let lines = "let x = 40\nx + 2\nfn double(n) {\n  n * 2\n}\n\ndouble(x)\nlet f = |n| n + x;\nx = 1;\n\
                 f.call(1)\nprint(\"printed\")\n[1, 2].map(|n| f.call(n))";
    assert_snapshot!(say(lines), @"
    exit code 0
    -- stdout
    42
    80
    2
    printed
    [2, 3]
    ");
    assert_snapshot!(say(""), @"exit code 0");
    assert_snapshot!(say("1\n:quit\n2"), @"
    exit code 0
    -- stdout
    1
    ");
    assert_snapshot!(say("1\nexit()\n2"), @"
    exit code 0
    -- stdout
    1
    ");
}

#[test]
fn the_first_error_ends_it() {
    assert_snapshot!(say("1\nlet y = sandbxo(\"a\");\n3"), @r#"
    exit code 3
    -- stdout
    1
    -- stderr
    error: there is no function 'sandbxo'
      --> repl:2:9
       |
     2 | let y = sandbxo("a");
       |         ^^^^^^^
    hint: did you mean 'sandbox'?
    "#);
    assert_snapshot!(say("let y = (1 + ;\n3"), @"
    exit code 3
    -- stderr
    error: unexpected ';'
      --> repl:1:14
       |
     1 | let y = (1 + ;
       |              ^
    ");
    assert_snapshot!(say("sandbox(\"a\").run(\"echo out; exit 3\")\n3"), @r#"
    exit code 1
    -- stderr
    error: 'echo out; exit 3' failed: exit code 3
      out
      --> repl:1:14
       |
     1 | sandbox("a").run("echo out; exit 3")
       |              ^^^
    hint: exec() gives the result instead of an error
    "#);
    assert_snapshot!(say("fn f(n) {\n  open(n)\n}\nf(\"nope\")"), @r#"
    exit code 3
    -- stderr
    error: sandbox 'nope' not found
      --> repl:2:3
       |
     2 |   open(n)
       |   ^^^^
      in f(), called at repl:4:1
    hint: sandbox("nope") makes it
    "#);
    let failed = say("matrix(\"m\", #{ axes: #{ a: [1] } }, |c| c.sandbox.run(\"exit 1\"));\n3");
    assert_eq!(failed.code, Some(1), "{failed}");
    assert_snapshot!(say("1\nf(1,"), @"
    exit code 3
    -- stdout
    1
    -- stderr
    error: script is incomplete
      --> repl:2:5
       |
     2 | f(1,
       |     ^
    ");
    assert_snapshot!(say("`never\nends"), @"
    exit code 3
    -- stderr
    error: open string is not terminated
      --> repl:1:1
       |
     1 | `never
       | ^
    ");
}

#[test]
fn bad_input() {
    let environment = TestEnvironment::fake();
    assert_snapshot!(environment.run_with(["repl"], b"1\n\"\xff\"\n2"), @"
    exit code 2
    -- stdout
    1
    -- stderr
    error: standard input is not UTF-8 text
    ");
    let long = format!("1\n`{}", "text\n".repeat(3000));
    assert_snapshot!(say(&long), @"
    exit code 2
    -- stdout
    1
    -- stderr
    error: an entry of standard input is longer than 2000 lines or 1MiB; 'run' takes longer scripts
    ");
    let long = format!("\"{}\"", "x".repeat(1 << 21));
    assert_snapshot!(say(&long), @"
    exit code 2
    -- stderr
    error: an entry of standard input is longer than 2000 lines or 1MiB; 'run' takes longer scripts
    ");
    assert_snapshot!(environment.run_with(["repl", "--lang", "rhia"], b""), @"
    exit code 2
    -- stderr
    error: there is no language 'rhia'
    hint: did you mean 'rhai'?
    ");
    assert_snapshot!(environment.run_with(["repl", "--backend", "fkae"], b""), @"
    exit code 2
    -- stderr
    error: backend 'fkae' not found
    hint: did you mean 'fake'?
    ");
}

#[test]
fn commands_that_are_wrong() {
    let environment = TestEnvironment::fake();
    environment.write("there.rhai", "1");
    environment.write("broken.rhai", "let a = 1;\nlet b = (;\n");
    environment.write("fails.rhai", "let a = 1;\nopen(\"nope\");\n");
    environment.write("other.py", "");
    let say = |lines: &str| say_in(&environment, lines);
    assert_snapshot!(say(":sandboxs"), @"
    exit code 2
    -- stderr
    error: there is no command ':sandboxs'
    hint: did you mean ':sandboxes'?
    ");
    assert_snapshot!(say(":zzz"), @"
    exit code 2
    -- stderr
    error: there is no command ':zzz'
    hint: :help lists the commands
    ");
    assert_snapshot!(say(":"), @"
    exit code 2
    -- stderr
    error: there is no command ':'
    hint: :help lists the commands
    ");
    assert_snapshot!(say(":load"), @"
    exit code 2
    -- stderr
    error: :load needs a file
    hint: write :load FILE
    ");
    assert_snapshot!(say(":quit now"), @"
    exit code 2
    -- stderr
    error: :quit takes nothing
    hint: write :quit
    ");
    assert_snapshot!(say(":load nope.rhai"), @"
    exit code 2
    -- stderr
    error: file 'nope.rhai' not found
    ");
    assert_snapshot!(say(":load broken.rhai"), @"
    exit code 3
    -- stderr
    error: unexpected ';'
      --> broken.rhai:2:10
       |
     2 | let b = (;
       |          ^
    ");
    assert_snapshot!(say(":load fails.rhai"), @r#"
    exit code 3
    -- stderr
    error: sandbox 'nope' not found
      --> fails.rhai:2:1
       |
     2 | open("nope");
       | ^^^^
    hint: sandbox("nope") makes it
    "#);
    assert_snapshot!(say(":load other.py"), @"
    exit code 2
    -- stderr
    error: 'other.py' is in no language that is known here
    hint: a script's name ends in .lua or .rhai
    ");
    assert_snapshot!(say(":save x.rhai"), @"
    exit code 2
    -- stderr
    error: there is nothing to save
    hint: what was entered and worked is saved
    ");
    assert_snapshot!(say("1\n:save x.lua"), @"
    exit code 2
    -- stdout
    1
    -- stderr
    error: 'x.lua' does not end in .rhai
    hint: the ending says the language of a script
    ");
    assert_snapshot!(say("1\n:save there.rhai"), @"
    exit code 2
    -- stdout
    1
    -- stderr
    error: 'there.rhai' is there already
    hint: :save! there.rhai replaces it
    ");
    assert_snapshot!(say("1\n:save nope/x.rhai"), @"
    exit code 2
    -- stdout
    1
    -- stderr
    error: 'nope/x.rhai' can't be written: No such file or directory (os error 2)
    ");
    assert_snapshot!(say(":lang rubi"), @"
    exit code 2
    -- stderr
    error: there is no language 'rubi'
    hint: there are: lua, rhai
    ");
    assert_snapshot!(say(":backend nope"), @"
    exit code 2
    -- stderr
    error: backend 'nope' not found; still on fake
    hint: the backends are local, incus, truenas, nspawn, fake
    ");
    assert_snapshot!(say(":help nope"), @"
    exit code 2
    -- stderr
    error: there is no help on 'nope'
    hint: :help lists what there is
    ");
    assert_snapshot!(say(":help sandbxo"), @"
    exit code 2
    -- stderr
    error: there is no help on 'sandbxo'
    hint: did you mean 'Sandbox'?
    ");
    assert_snapshot!(say("help(Sandbox.rum)"), @"
    exit code 2
    -- stderr
    error: there is no help on 'Sandbox.rum'
    hint: did you mean 'Sandbox.run'?
    ");
    assert_snapshot!(say(":help :lod"), @"
    exit code 2
    -- stderr
    error: there is no command ':lod'
    hint: did you mean ':load'?
    ");
}

#[test]
fn a_backend_that_cannot_be_opened() {
    let environment = TestEnvironment::fake();
    std::fs::write(environment.path("store"), "in the way").unwrap();
    let run = say_in(&environment, ":backend\n:backend local\n:backend");
    assert_eq!(run.code, Some(2), "{run}");
    assert!(run.stderr.starts_with("on fake\nerror: "), "{run}");
    assert!(run.stderr.contains("; still on fake"), "{run}");
}

#[test]
fn values() {
    assert_snapshot!(say("()\n1\n1.5\ntrue\n\"one \\\"line\\\"\"\n\"two\\nlines\"\n'c'\n[1, \"a\"]\n#{ a: 1 }\n|x| x"), @r#"
    exit code 0
    -- stdout
    1
    1.5
    true
    "one \"line\""
    two
    lines
    "c"
    [1, "a"]
    {a: 1}
    <function>
    "#);
    assert_snapshot!(say("sandbox(\"web\", #{ labels: #{ team: \"infra\" } })\nopen(\"web\").run(\"echo out; echo err >&2\")\n\
        open(\"web\").run(\"true\")\nopen(\"web\").exec(\"echo out; exit 3\")\nopen(\"web\").spawn(\"cat\")\nsandboxes()[0].name"), @r#"
    exit code 0
    -- stdout
    sandbox 'web'
    out
    err
    result of 'true': exit code 0
    out
    result of 'echo out; exit 3': exit code 3
    process 5 'cat'
    "web"
    "#);
    assert_snapshot!(say("[#{ size: 2048, name: \"a\", tags: [] }, #{ name: \"b\\nc\", size: 1, ok: true }]"), @"
    exit code 0
    -- stdout
    name  size     ok
    a     2.0 KiB
    b c   1 B      true
    ");
    let keys: Vec<String> =
        (0..30).map(|number| format!("key_{number}: \"value {number}\"")).collect();
    let run = say(&format!("#{{ {}, nested: #{{ a: [1, 2] }}, none: () }}", keys.join(", ")));
    assert!(
        run.stdout.contains("\nkey_7   \"value 7\"\n")
            || run.stdout.contains("\nkey_7   value 7\n"),
        "{run}"
    );
    assert!(run.stdout.contains("\nnested  {a: [1, 2]}\n"), "{run}");
}

#[test]
fn nothing_is_cut_where_nobody_looks() {
    let run = say("let l = []; for i in 0..1000 { l.push(#{ number: i, text: \"x\" + i }); } l");
    assert_eq!(run.stdout.lines().count(), 1001, "{run}");
    let run = say("let s = \"\"; for i in 0..5000 { s += \"line \" + i + \"\\n\"; } s");
    assert_eq!(run.stdout.lines().count(), 5000, "{run}");
}

#[test]
fn tables_of_sandboxes() {
    let run = say("sandbox(\"web\"); sandbox(\"db\", #{ keep: true }); sandboxes()\n:sandboxes");
    let lines: Vec<Vec<&str>> =
        run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..3], ["name", "state", "image"], "{run}");
    assert_eq!(
        (lines[1][..3].to_vec(), lines[2][0]),
        (vec!["db", "running", "fake"], "web"),
        "{run}"
    );
    assert_eq!(lines[3], ["name", "state", "from", "created"], "{run}");
    assert!(run.stdout.contains("made here, kept\n"), "{run}");
    assert!(run.stderr.contains("kept: db (the script keeps it)"), "{run}");
    assert_snapshot!(say(":sandboxes"), @"
    exit code 0
    -- stderr
    there are no sandboxes
    ");
}

#[test]
fn help_from_the_registry() {
    assert_snapshot!(say("help(open)"), @r#"
    exit code 0
    -- stdout
    open(name: string) -> Sandbox
      Finds a sandbox that is there already. It is not deleted when the run ends.
      name              string. Its name.
      errors:
        not_found       There is none of that name.
      example:
        let web = open("web");
    "#);
    assert_snapshot!(say("let box = sandbox(\"a\");\nhelp(box.restore);"), @r#"
    exit code 0
    -- stdout
    box.restore(label: string, options?: map)
      Takes the sandbox back to a snapshot, any of them. One that ran is running again. Newer snapshots
      stay.
      label             string. The snapshot's label: A-Z, a-z, 0-9, '.', '_' and '-'.
      options:
        discard_newer   bool. Allow a backend that can't do otherwise to delete newer snapshots.
                        Default: false.
      errors:
        not_found       There is none with that label.
      example:
        box.snapshot("clean");
        box.run("echo broken > /etc/motd");
        box.restore("clean");
    "#);
    assert_snapshot!(say("help(\"Lines\")\n:help pid\n:help :save\nlet n = 1\n:help n\n:h while"), @"
    exit code 0
    -- stdout
    Lines.next()                The next line without its end
    process.pid: int?
      Its process id in the sandbox, when known.
      example:
        print(process.pid);
    :save FILE
      Writes what was entered and worked as a script; :save! replaces a file.
    n is a variable of this session, of type int
    'while' is a word of the language itself
    ");
    let run = say("help");
    for name in sandscript::Registry::standard().functions() {
        assert!(run.stdout.contains(name), "{name}: {run}");
    }
    assert!(run.stdout.contains("\nSandbox     allow, clone, delete, "), "{run}");
    assert!(run.stdout.contains("\ncommands    :backend, :help, :lang, :load, :quit, "), "{run}");
    assert!(run.stdout.contains("Ctrl-C ends a call, Ctrl-D leaves.\n"), "{run}");
    // One's own function of that name is one's own.
    assert_snapshot!(say("fn help(x) { x }\nhelp(1)"), @"
    exit code 0
    -- stdout
    1
    ");
}

#[test]
fn what_worked_is_saved_as_a_script() {
    let environment = TestEnvironment::fake();
    let lines = "let x = 40\nfn f(n) {\n  n + 2\n}\nx // why\nlet g = |n| { n }\n:load more.rhai\n#{ a: 1 }\nprint(f(x))\n\
                 :save out.rhai\n:save! out.rhai";
    environment.write("more.rhai", "let y = 1;\nfn h() { 3 }\n");
    assert_snapshot!(say_in(&environment, lines), @"
    exit code 0
    -- stdout
    40
    {a: 1}
    42
    -- stderr
    more.rhai is done; new here: h, y
    out.rhai has 7 entries
    out.rhai has 7 entries
    ");
    let saved = std::fs::read_to_string(environment.path("project/out.rhai")).unwrap();
    assert_snapshot!(saved, @"
    let x = 40;
    fn f(n) {
      n + 2
    }
    x // why
    ;
    let g = |n| { n };
    let y = 1;
    fn h() { 3 };
    #{ a: 1 };
    print(f(x));
    ");
    assert_eq!(environment.ok(["run", "out.rhai"]), "42\n");
    // What was typed before it stays known, and errors say the file.
    environment.write("bad.rhai", "fn b() {\n  open(\"nope\")\n}\n");
    assert_snapshot!(say_in(&environment, "let x = 1\n:load bad.rhai\nx\nb()"), @r#"
    exit code 3
    -- stdout
    1
    -- stderr
    bad.rhai is done; new here: b
    error: sandbox 'nope' not found
      --> bad.rhai:2:3
       |
     2 |   open("nope")
       |   ^^^^
      in b(), called at repl:3:1
    hint: sandbox("nope") makes it
    "#);
}

#[test]
fn times_are_told() {
    let run = say(":time 1\n:time\n2\n:time\n3");
    assert_eq!(run.stdout, "1\n2\n3\n", "{run}");
    let told: Vec<&str> = run.stderr.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(told, ["took", "each", "took", "entries"], "{run}");
}

#[test]
fn backends_have_their_own_variables() {
    let Some(environment) = TestEnvironment::local() else { return };
    let run = environment.run_with(
        ["repl", "--backend", "fake"],
        b"let x = 1\nlet a = sandbox(\"a\")\n:backend local\nlet y = sandbox(\"b\")\n:sandboxes\n:backend fake\nx\n:backend\n",
    );
    assert_eq!(run.code, Some(0), "{run}");
    assert!(run.stderr.contains("on local; nothing is declared here yet\n"), "{run}");
    assert!(run.stderr.contains("on fake; declared here: a, x\non fake\n"), "{run}");
    assert!(run.stdout.contains("made here") && !run.stdout.contains("\na "), "{run}");
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
}

#[test]
fn what_was_made_is_deleted_unless_kept() {
    let Some(environment) = TestEnvironment::local() else { return };
    assert_eq!(say_in(&environment, "sandbox(\"a\"); nope()").code, Some(3));
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
    let run = environment.run_with(["repl", "--keep"], b"sandbox(\"a\")");
    assert_snapshot!(run, @"
    exit code 0
    -- stdout
    sandbox 'a'
    -- stderr
    kept: a (--keep)
    ");
    assert!(environment.ok(["list"]).contains("a  "));
}

#[test]
fn gc_takes_what_a_killed_session_left() {
    let Some(environment) = TestEnvironment::local() else { return };
    let mut child = environment.command(["repl"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"let a = sandbox(\"left\"); print(\"ready\")\n").unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    // It answers while its input goes on.
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(environment.run(["gc", "--yes"]).code, Some(0));
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
}

#[test]
fn a_signal_ends_it() {
    let Some(environment) = TestEnvironment::local() else { return };
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = environment.command(["repl"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(b"let a = sandbox(\"a\"); print(\"ready\"); a.run(\"sleep 60\")\n")
            .unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        let pid = child.id().to_string();
        let kill = std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(kill.unwrap().success());
        let run = environment.finish(child);
        assert_eq!(run.code, Some(code), "{run}");
        assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
    }
}

#[test]
fn two_languages() {
    let lines = "let n = 1\nlet box = sandbox(\"web\")\n:lang lua\nn2 = 2\nfunction f(a)\n  return a + n2\nend\n\nf(40)\n\
                 box.state\nother = sandbox(\"twin\")\nhelp(box.restore)\n:lang rhai\nn + 1\nother.name\n:lang\n:lang lua\nf(n)";
    assert_snapshot!(say(lines), @r#"
    exit code 3
    -- stdout
    42
    "running"
    box:restore(label: string, options?: map)
      Takes the sandbox back to a snapshot, any of them. One that ran is running again. Newer snapshots
      stay.
      label             string. The snapshot's label: A-Z, a-z, 0-9, '.', '_' and '-'.
      options:
        discard_newer   bool. Allow a backend that can't do otherwise to delete newer snapshots.
                        Default: false.
      errors:
        not_found       There is none with that label.
      example:
        box:snapshot("clean")
        box:run("echo broken > /etc/motd")
        box:restore("clean")
    2
    "twin"
    -- stderr
    in Lua; box came along
    in Rhai; box, other came along
    in Rhai
    in Lua; box, other came along
    error: there is no variable 'n'
      --> repl:8:3
       |
     8 | f(n)
       |   ^
    hint: did you mean 'n2'?
    "#);
    let environment = TestEnvironment::fake();
    let run = environment.run_with(
        ["repl", "--lang", "lua"],
        b"x = 40\nx + 2 -- why\nprint(x)\n{ { a = 1 }, { a = 2 } }\n:save out.lua",
    );
    assert_snapshot!(run, @"
    exit code 0
    -- stdout
    42
    40
    a
    1
    2
    -- stderr
    out.lua has 4 entries
    ");
    assert_eq!(environment.ok(["run", "out.lua"]), "40\n");
}
