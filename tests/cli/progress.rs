//! The progress display, in a real terminal (tmux).

use crate::environment::{TestEnvironment, program};
use crate::terminal::{Terminal, tmux_is_there};

fn run(environment: &TestEnvironment, script: &str) -> Terminal {
    environment.write("x.rhai", script);
    let line = format!(
        "trap : INT; SANDSCRIPT_BACKEND=fake {} run x.rhai; echo \"exit code $?\"; sleep 60",
        program().display()
    );
    Terminal::open(environment, &line)
}

#[test]
fn cells_are_shown_while_they_run() {
    if !tmux_is_there() {
        return;
    }
    let environment = TestEnvironment::fake();
    let terminal = run(
        &environment,
        "matrix(\"m\", #{ axes: #{ a: [1, 2, 3] }, parallel: 3 }, |cell| {
            let over = cell.a != 2;
            while !over {
                try { cell.sandbox.push(\"go\", \"/go\"); over = true; } catch { sleep(\"20ms\"); }
            }
        });",
    );
    // The bar and the line of the running cell need not change in the same frame.
    terminal.wait_for("2/3");
    terminal.wait_for("a=2");
    environment.write("go", "");
    let screen = terminal.wait_for("exit code 0");
    assert!(screen.contains("3 passed"), "{screen}");
    // Nothing of the moving part is left behind.
    assert!(!screen.contains("1/3") && !screen.contains("2/3"), "{screen}");
}

#[test]
fn ctrl_c_leaves_a_clean_screen() {
    if !tmux_is_there() {
        return;
    }
    let environment = TestEnvironment::fake();
    let terminal = run(
        &environment,
        "matrix(\"m\", #{ axes: #{ a: [1, 2] }, parallel: 1 }, |cell| { sleep(\"60s\"); });",
    );
    terminal.wait_for("0/2");
    terminal.keys("C-c");
    let screen = terminal.wait_for("exit code 130");
    assert!(screen.contains("stopping and cleaning up"), "{screen}");
    assert!(!screen.contains("0/2"), "{screen}");
}
