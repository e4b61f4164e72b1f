//! `sandscript run`: which cells run, in which order, how often, and what is said of them.

use insta::assert_snapshot;
use serde_json::Value;

use crate::environment::{Run, TestEnvironment};

/// The text, whatever the machine's speed.
fn timeless(text: &str) -> String {
    let is_time = |word: &str| {
        let word = word.trim_end_matches(':');
        let number = ["ms", "µs", "s"].into_iter().find_map(|unit| word.strip_suffix(unit));
        number.is_some_and(|number| number.parse::<f64>().is_ok())
    };
    let line = |line: &str| {
        let word = |word: &str| if is_time(word) { "TIME".into() } else { word.to_owned() };
        line.split(' ').map(word).collect::<Vec<_>>().join(" ").trim_end().to_owned() + "\n"
    };
    text.lines().map(line).collect()
}

const TEN: &str = "matrix(\"m\", #{ axes: #{ n: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] } }, |cell| ());";

fn run(script: &str, args: &[&str]) -> Run {
    let environment = TestEnvironment::fake();
    environment.write("x.rhai", script);
    environment.run(["run", "x.rhai"].iter().chain(args))
}

fn listed(args: &[&str]) -> Vec<String> {
    let run = run(TEN, &[&["--list"], args].concat());
    assert_eq!(run.code, Some(0), "{run}");
    run.stdout.lines().map(String::from).collect()
}

#[test]
fn all_outcomes_are_told() {
    let script = "matrix(\"m\", #{ axes: #{ kind: [\"expected\", \"failed\", \"flaky\", \"passed\", \"skipped\"] }, parallel: 1, retries: 1 }, |cell| {
        switch cell.kind {
            \"expected\" => { expect_fail(\"not ported\"); fail(\"no driver\"); }
            \"failed\" => cell.sandbox.run(\"echo oops >&2; exit 3\"),
            \"flaky\" => if cell.attempt == 1 { cell.sandbox.run(\"echo shaky; exit 1\"); },
            \"skipped\" => skip(\"no licence\"),
            _ => (),
        }
    });";
    let run = run(script, &["--on-fail", "clean"]);
    assert_eq!(run.code, Some(1), "{run}");
    // Retries come in no order; the table does.
    let table = run.stderr.split_once("\n\n").unwrap().1;
    assert_snapshot!(timeless(table));
    for line in [
        "~ kind=flaky  attempt 1 failed in TIME 'echo shaky; exit 1' failed: exit code 1 (at x.rhai:5:60)  (again)",
        "~ kind=flaky  flaky in TIME",
        "- kind=skipped  skipped: no licence",
    ] {
        let said = timeless(&run.stderr).replace("TIME:", "TIME");
        assert!(said.contains(line), "{line}\n{run}");
    }
}

#[test]
fn parts_of_a_matrix() {
    let parts: Vec<Vec<String>> =
        ["1/3", "2/3", "3/3"].iter().map(|part| listed(&["--partition", part])).collect();
    assert_eq!(parts[0], ["n=0", "n=3", "n=6", "n=9"]);
    let mut all = parts.concat();
    all.sort();
    assert_eq!(all, listed(&[]));
    assert_eq!(listed(&["--filter", "n=1", "--filter", "n=2", "--partition", "2/2"]), ["n=2"]);
    assert_snapshot!(run(TEN, &["--partition", "4/3"]), @"
    exit code 2
    -- stderr
    error: invalid value '4/3' for '--partition <M/N>': '4/3' is not a part of a matrix; write it as 1/4: the first of four parts

    For more information, try '--help'.
    ");
}

#[test]
fn repetitions() {
    let all = listed(&["--repeat", "2", "--filter", "n=3"]);
    assert_eq!(all, ["n=3,repeat=1", "n=3,repeat=2"]);
    assert_eq!(listed(&["--repeat", "5", "--filter", &all[1]]), ["n=3,repeat=2"]);
    let run = run(TEN, &["--repeat", "3", "--filter", "n=3"]);
    assert!(run.code == Some(0) && run.stderr.contains("3 cells: 3 passed"), "{run}");
}

#[test]
fn a_list_as_json() {
    let run = run(TEN, &["--list", "--format", "json", "--filter", "n=3"]);
    assert_snapshot!(run, @r#"
    exit code 0
    -- stdout
    {
      "cells": 1,
      "matrices": [
        {
          "cells": [
            {
              "id": "n=3",
              "values": {
                "n": 3
              }
            }
          ],
          "matrix": "m"
        }
      ],
      "v": 1
    }
    "#);
    let run = self::run(TEN, &["--list", "--format", "json", "--filter", "n=x"]);
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["cells"], 0);
    assert_snapshot!(self::run(TEN, &["--format", "json"]).stderr, @"
    error: --format json is about a plan or a list
    hint: add --plan or --list; --report jsonl=PATH writes what happens in a run
    ");
}

#[test]
fn a_random_order_can_be_had_again() {
    let script = "matrix(\"m\", #{ axes: #{ n: [0, 1, 2, 3, 4, 5, 6, 7] }, parallel: 1, order: \"random\" }, |cell| print(cell.n));";
    let first = run(script, &[]);
    let seed = first.stderr.split_once("(--seed ").unwrap().1.split_once(')').unwrap().0;
    let again = run(script, &["--seed", seed]);
    assert_eq!(first.stdout, again.stdout);
    let seeds = ["1", "2", "3", "4"];
    let others: Vec<String> =
        seeds.iter().map(|seed| run(script, &["--seed", seed]).stdout).collect();
    assert!(others.iter().any(|other| *other != first.stdout));
    let given = run(script, &["--order", "given"]);
    assert_eq!(given.stdout, "0\n1\n2\n3\n4\n5\n6\n7\n");
    assert_snapshot!(run(script, &["--order", "longst"]), @"
    exit code 2
    -- stderr
    error: invalid value 'longst' for '--order <ORDER>': 'longst' is not an order; there are: longest, given, random

    For more information, try '--help'.
    ");
}

#[test]
fn the_command_line_beats_the_script() {
    let script = "matrix(\"m\", #{ axes: #{ n: [0, 1, 2, 3] }, parallel: 1, retries: 5 }, |cell| fail(\"no\"));";
    let run = run(script, &["--retries", "0", "--max-fail", "2"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.stderr.contains("2 failed, 2 not run"), "{run}");
    assert!(!run.stderr.contains("attempt"), "{run}");
}
