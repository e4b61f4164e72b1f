//! `sandscript repl` in a real terminal (tmux).

use crate::environment::{TestEnvironment, program};
use crate::terminal::{Terminal, tmux_is_there};

fn open(environment: &TestEnvironment, args: &str) -> Terminal {
    open_at(environment, "tmux", args)
}

fn open_at(environment: &TestEnvironment, name: &str, args: &str) -> Terminal {
    let line = format!(
        "trap : INT; SANDSCRIPT_STORE={} {} repl {args}; echo \"exit code $?\"; stty -a | grep -c -w -e '-icanon'; sleep 60",
        environment.path("store").display(),
        program().display()
    );
    let terminal = Terminal::open_at(environment, name, &line);
    terminal.wait_for("rhai>");
    terminal
}

fn fake() -> Option<(TestEnvironment, Terminal)> {
    if !tmux_is_there() {
        return None;
    }
    let environment = TestEnvironment::fake();
    let terminal = open(&environment, "--backend fake");
    Some((environment, terminal))
}

/// What is on the screen from the last prompt that shows `from`.
fn since(screen: &str, from: &str) -> String {
    let at = screen.rfind(from).unwrap_or(0);
    screen[at..].lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

#[test]
fn a_conversation() {
    let Some((_environment, terminal)) = fake() else { return };
    terminal.wait_for("Rhai on fake. :help lists what there is, Ctrl-D leaves.");
    terminal.line("let box = sandbox(\"web\");");
    terminal.line("fn double(n) {");
    terminal.line("  n * 2");
    terminal.line("}");
    terminal.line("double(21)");
    terminal.wait_for("\n42\n");
    terminal.line("let y = (1 + ;");
    let screen = terminal.wait_for("^\nrhai>");
    insta::assert_snapshot!(since(&screen, "error:"), @"
    error: unexpected ';'
      --> repl:6:14
       |
     6 | let y = (1 + ;
       |              ^
    rhai>
    ");
    terminal.line("[#{ name: \"a\", size: 2048 }, #{ name: \"b\", size: 1 }]");
    let screen = terminal.wait_for("b     1 B\nrhai>");
    insta::assert_snapshot!(since(&screen, "name  "), @"
    name  size
    a     2.0 KiB
    b     1 B
    rhai>
    ");
    // What was typed is thrown away by Ctrl-C, and the next line is whole.
    terminal.text("box.nope(");
    terminal.wait_for("box.nope(");
    terminal.keys("C-c");
    terminal.wait_for("rhai> box.nope(\nrhai>");
    terminal.line("1000 + 1");
    terminal.wait_for("\n1001\n");
    terminal.keys("C-d");
    terminal.wait_for("made here: web\ndestroy them? [Y/n, or names to keep]");
    terminal.line("wbe");
    terminal.wait_for("hint: did you mean 'web'?");
    // Ctrl-C goes back.
    terminal.keys("C-c");
    terminal.wait_for("still here\nrhai>");
    terminal.line("box.state + \"!\"");
    terminal.wait_for("\"running!\"");
    terminal.line(":quit");
    terminal
        .wait_for("still here\nrhai> box.state + \"!\"\n\"running!\"\nrhai> :quit\nmade here: web");
    terminal.keys("Enter");
    // The terminal is as it was: no line of stty says -icanon.
    terminal.wait_for("destroyed: web\nexit code 0\n0");
}

#[test]
fn tab_completes() {
    let Some((_environment, terminal)) = fake() else { return };
    terminal.line("let box = sandbox(\"web-1\"); box.snapshot(\"clean\"); box.snapshots()");
    terminal.wait_for("clean  ");
    let offers = |typed: &str, expected: &str| {
        terminal.text(typed);
        terminal.keys("Tab");
        let screen = terminal.wait_for(expected);
        // What comes right behind Ctrl-C may be thrown away with the line.
        terminal.keys("C-u");
        terminal.line(":time 0");
        terminal.wait_for("took ");
        terminal.keys("C-l");
        terminal.wait_until(|terminal| !terminal.screen().contains("took "));
        screen
    };
    offers("sandb", "sandbox    sandboxes");
    offers("json_p", "rhai> json_parse(");
    offers("print(bo", "rhai> print(box");
    offers("box.rest", "restart  restore");
    offers("box.delete_", "rhai> box.delete_snapshot(");
    offers("sandbox(\"x\").run(\"ls\").trunc", "rhai> sandbox(\"x\").run(\"ls\").truncated");
    offers("box.run(\"ls\", #{ time", "#{ timeout:");
    offers("open(\"we", "open(\"web-1");
    offers("sandbox(#{ from: \"we", "from: \"web-1");
    offers("box.restore(\"cl", "box.restore(\"clean");
    offers("box.clone(\"cl", "box.clone(\"clean");
    offers("box.spawn(\"x\").read(#{ stream: \"stdo", "stream: \"stdout");
    offers(":sandb", "rhai> :sandboxes");
    offers(":help Sandbox", "rhai> :help Sandbox");
    offers(":lang rh", "rhai> :lang rhai");
    let all = offers("box.", "write");
    assert!(all.contains("snapshots") && !all.contains("json_parse"), "{all}");
}

#[test]
fn history_outlives_the_session() {
    let Some((environment, terminal)) = fake() else { return };
    terminal.line("let answer = [4,");
    terminal.line("  2]");
    terminal.line("answer[0] + 100");
    terminal.wait_for("\n104\n");
    terminal.line(" \"a secret\".len() + 200");
    terminal.wait_for("\n208\n");
    terminal.keys("C-d");
    terminal.wait_for("exit code 0");
    drop(terminal);
    let file = environment.path("home/.local/state/sandscript/history.rhai");
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "#V2\nlet answer = [4,\\n  2]\nanswer[0] + 100\n"
    );
    let terminal = open_at(&environment, "tmux2", "--backend fake");
    // The rest of an old entry is a hint, which the right arrow takes.
    terminal.keys("Up");
    terminal.wait_for("rhai> answer[0] + 100");
    terminal.keys("Up");
    terminal.wait_for("rhai> let answer = [4,\n  2]");
    terminal.keys("Enter");
    terminal.text("ans");
    terminal.wait_for("2]\nrhai> answer[0] + 100");
    terminal.keys("Right");
    terminal.line(" + 1000");
    terminal.wait_for("\n1104\n");
}

#[test]
fn two_sessions_share_their_history() {
    let Some((environment, one)) = fake() else { return };
    let two = open_at(&environment, "tmux2", "--backend fake");
    one.line("100 + 1");
    one.wait_for("\n101\n");
    two.line("200 + 2");
    two.wait_for("\n202\n");
    one.line("300 + 3");
    one.wait_for("\n303\n");
    let file = environment.path("home/.local/state/sandscript/history.rhai");
    let mut lines: Vec<String> =
        std::fs::read_to_string(&file).unwrap().lines().map(String::from).collect();
    lines.sort();
    assert_eq!(lines, ["#V2", "100 + 1", "200 + 2", "300 + 3"]);
}

#[test]
fn a_history_that_cannot_be_kept() {
    if !tmux_is_there() {
        return;
    }
    let environment = TestEnvironment::fake();
    let folder = environment.path("home/.local/state/sandscript");
    std::fs::create_dir_all(folder.join("history.rhai")).unwrap();
    let terminal = open(&environment, "--backend fake");
    let screen = terminal.wait_for("warning: the history can't be read, and so is not kept:");
    // The path may be longer than a line.
    assert!(screen.replace('\n', "").contains("Is a directory"), "{screen}");
    terminal.line("100 + 1");
    terminal.wait_for("\n101\n");
    terminal.keys("Up");
    terminal.wait_for("101\nrhai> 100 + 1");
    drop(terminal);
    // Nor one whose folder can't be made.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    let terminal = open_at(&environment, "tmux2", "--backend fake");
    terminal.line("100 + 2");
    terminal.wait_for("\n102\n");
    let screen = terminal.screen();
    assert_eq!(screen.matches("warning: the history can't be").count(), 1, "{screen}");
}

#[test]
fn huge_values_are_cut() {
    let Some((_environment, terminal)) = fake() else { return };
    terminal.line("let l = []; for i in 0..5000 { l.push(#{ number: i }); } l");
    terminal.wait_for("… and 4900 more rows; print it to see all\nrhai>");
    terminal.line("let s = \"\"; for i in 0..5000 { s += \"line \" + i + \"\\n\"; } s");
    terminal.wait_for("line 199\n… and 4800 more lines; print it to see all\nrhai>");
    terminal.line("s.pad(1000000, \"x\"); s.replace(\"\\n\", \" \"); s");
    terminal.wait_for(" more\nrhai>");
    terminal.line("\"\\x1b[2J\\x1b[31mred\\n\\x07bell\"");
    terminal.wait_for("red\nbell\nrhai>");
}

#[test]
fn a_narrow_terminal() {
    let Some((_environment, terminal)) = fake() else { return };
    terminal.resize(24, 12);
    terminal.line("sandbox(\"web\")");
    terminal.wait_for("sandbox 'web'");
    terminal.line("sandboxes()");
    let screen = terminal.wait_for("… and ");
    assert!(screen.contains("name"), "{screen}");
    terminal.line("help(open)");
    terminal.wait_for("  example:");
    terminal.text("box.");
    terminal.keys("Tab");
    terminal.wait_for("--More--");
    terminal.keys("q");
    terminal.keys("C-c");
    terminal.line("\"still\" + \" there\"");
    terminal.wait_for("\"still there\"");
}

#[test]
fn a_backend_that_cannot_be_opened_leaves_all_as_it_was() {
    if !tmux_is_there() {
        return;
    }
    let environment = TestEnvironment::fake();
    std::fs::write(environment.path("store"), "in the way").unwrap();
    let terminal = open(&environment, "--backend fake");
    terminal.line("let x = 41");
    terminal.line(":backend local");
    terminal.wait_for("still on fake");
    terminal.line(":backend lokal");
    terminal.wait_for("backend 'lokal' not found; still on fake");
    terminal.line("x + 1");
    terminal.wait_for("\n42\n");
    terminal.line(":sandboxs");
    terminal.wait_for("error: there is no command ':sandboxs'\nhint: did you mean ':sandboxes'?");
}

#[test]
fn ctrl_c_ends_the_call_and_not_the_session() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !tmux_is_there() {
        return;
    }
    let terminal = open(&environment, "");
    terminal.line("let box = sandbox(\"a\"); let n = 7;");
    terminal.line("print(\"rea\" + \"dy\"); box.run(\"sleep 71\")");
    terminal.wait_for("\nready\n");
    // The command runs before it is ended.
    let ps = || {
        environment.ok(["exec", "a", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"])
    };
    terminal.wait_until(|_| ps().contains("sleep 71"));
    terminal.keys("C-c");
    terminal.wait_for("error: cancelled\nrhai>");
    terminal.wait_until(|_| !ps().contains("sleep 71"));
    terminal.line("n + 100");
    terminal.wait_for("\n107\n");
    terminal.line("print(\"bu\" + \"sy\"); loop { try { sleep(\"1ms\"); } catch { } }");
    terminal.wait_for("\nbusy\n");
    terminal.keys("C-c");
    terminal.wait_until(|terminal| terminal.screen().matches("error: cancelled").count() == 2);
    terminal.line("n + 200");
    terminal.wait_for("\n207\n");
    // What was made is still there, and stays when it is wanted.
    terminal.keys("C-d");
    terminal.wait_for("made here: a\n");
    terminal.line("n");
    terminal.wait_for("exit code 0");
    assert!(environment.ok(["list"]).contains("a  "));
    assert_eq!(environment.ok(["gc"]), "", "nobody owns it any more");
}

#[test]
fn what_goes_on_behind_is_told_above_the_prompt() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !tmux_is_there() {
        return;
    }
    let terminal = open(&environment, "");
    terminal.line("let box = sandbox(\"a\"); let p = box.spawn(\"while read line; do echo tick $line; done\");");
    terminal.line("p.on_output(|line, stream| print(\"got \" + line));");
    terminal.line("let q = box.spawn(\"sleep 1; echo late\"); q.on_output(|line, stream| print(\"it is \" + line));");
    terminal.text("100 + 2");
    terminal.wait_for("it is late\nrhai> 100 + 2");
    terminal.keys("Enter");
    terminal.wait_for("rhai> 100 + 2\n102\nrhai>");
    terminal.line("matrix(\"m\", #{ axes: #{ a: [1, 2, 3] }, parallel: 1 }, |cell| { sleep(if cell.a == 2 { \"3s\" } else { \"10ms\" }); });");
    terminal.wait_for("/3 m");
    terminal.wait_for("3 passed");
    terminal.wait_until(|terminal| !terminal.screen().contains("/3 m"));
    terminal.line("100 + 3");
    terminal.wait_for("\n103\nrhai>");
}

#[test]
fn a_signal_at_the_prompt_cleans_up() {
    let Some(environment) = TestEnvironment::local() else { return };
    if !tmux_is_there() {
        return;
    }
    let line = format!(
        "SANDSCRIPT_STORE={} {} repl & echo $! > pid; fg %1 >/dev/null; echo \"exit code $?\"; stty -a | grep -c -w -e '-icanon'; sleep 60",
        environment.path("store").display(),
        program().display()
    );
    environment.write("start.sh", &format!("set -m\n{line}\n"));
    let terminal = Terminal::open(&environment, "bash start.sh");
    terminal.wait_for("rhai>");
    terminal.line("let a = sandbox(\"a\"); 100 + 1");
    terminal.wait_for("\n101\n");
    let pid = std::fs::read_to_string(environment.path("project/pid")).unwrap();
    let kill = std::process::Command::new("kill").args(["-TERM", pid.trim()]).status();
    assert!(kill.unwrap().success());
    terminal.wait_for("exit code 143\n0");
    assert_eq!(environment.ok(["list", "--format", "json"]), "[]\n");
}
