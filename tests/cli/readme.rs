//! What the README shows must work.

use crate::environment::{TestEnvironment, repository};

fn readme() -> String {
    std::fs::read_to_string(repository().join("README.md")).unwrap()
}

fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let rest = text.split(&start).skip(1);
    rest.map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn its_script_runs() {
    let Some(environment) = TestEnvironment::local() else { return };
    let text = readme();
    for language in ["rhai", "lua"] {
        let scripts = blocks(&text, language);
        assert!(!scripts.is_empty(), "{language}");
        for script in scripts {
            let file = format!("readme.{language}");
            environment.write(&file, script);
            let run = environment.run(["run", &file]);
            assert_eq!(run.code, Some(0), "{run}");
            assert_eq!(run.stdout, "4 cells passed; restored: true\n", "{run}");
        }
    }
}

#[test]
fn every_script_is_there_in_both_languages() {
    let names = |end: &str| {
        let files = std::fs::read_dir(repository().join("scripts")).unwrap();
        let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> =
            files.filter_map(|name| name.strip_suffix(end).map(str::to_owned)).collect();
        names.sort();
        names
    };
    assert_eq!(names(".lua"), names(".rhai"));
}

#[test]
fn its_verbs_work() {
    let Some(environment) = TestEnvironment::local() else { return };
    let text = readme();
    let commands: Vec<&str> = blocks(&text, "console")
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("$ sandscript "))
        .filter(|line| !line.starts_with("run ") && !line.contains(" -it "))
        .collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let limits = environment.has("limit-memory");
        let command =
            if limits { command.to_owned() } else { command.replace("--memory 512MiB", "") };
        let words = shell_words(&command);
        let run = environment.run(&words);
        assert_eq!(run.code, Some(0), "{words:?}: {run}");
    }
}

/// Words as a shell cuts them, where there are single quotes and comments only.
fn shell_words(line: &str) -> Vec<String> {
    let line = line.split("  #").next().unwrap();
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
