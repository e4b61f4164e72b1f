//! What a guest's own test runner wrote: JUnit XML, or the JSON lines of Rust's libtest.

use std::time::Duration;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event as Xml};
use serde::{Deserialize, Serialize};

use crate::sandbox::{Error, Result};

use super::Place;
use super::event::some_seconds;

/// How a test inside of a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestOutcome {
    /// It passed.
    Passed,
    /// It failed, or could not be run.
    Failed,
    /// It was skipped.
    Skipped,
}

impl TestOutcome {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            TestOutcome::Passed => "passed",
            TestOutcome::Failed => "failed",
            TestOutcome::Skipped => "skipped",
        }
    }
}

/// A test inside of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellTest {
    /// Its full name.
    pub name: String,
    /// How it ended.
    pub outcome: TestOutcome,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "some_seconds")]
    pub duration: Option<Duration>,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where it failed, in the tested project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What it printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// The tests in a report: JUnit XML when it begins with `<`, else libtest's JSON lines.
pub fn read_results(text: &str) -> Result<Vec<CellTest>> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let tests = if text.starts_with('<') { junit(text) } else { libtest(text) };
    tests.map_err(|why| {
        Error::invalid_hint(
            "results",
            format!("the report can't be read: {why}"),
            "it must be JUnit XML, or the JSON lines of libtest (--format json)",
        )
    })
}

type Read<T> = std::result::Result<T, String>;

/// What a case is on the way.
#[derive(Default)]
struct Case {
    name: String,
    class: String,
    file: Option<String>,
    line: Option<usize>,
    duration: Option<Duration>,
    outcome: Option<TestOutcome>,
    message: Option<String>,
    text: String,
    output: String,
}

impl Case {
    fn done(self) -> CellTest {
        let name = match self.class.is_empty() {
            true => self.name,
            false => format!("{}::{}", self.class, self.name),
        };
        let outcome = self.outcome.unwrap_or(TestOutcome::Passed);
        let text = self.text.trim().to_owned();
        let message = match (self.message.filter(|message| !message.trim().is_empty()), text) {
            // Its text only says where.
            (Some(message), _) if outcome == TestOutcome::Skipped => Some(message),
            (Some(message), text) if text.is_empty() || text.contains(&message) => {
                Some(if text.is_empty() { message } else { text })
            }
            (Some(message), text) => Some(format!("{message}\n{text}")),
            (None, text) => (!text.is_empty()).then_some(text),
        };
        let said = self.file.map(|file| Place { file, line: self.line.unwrap_or(1), column: 0 });
        let found = message.as_deref().and_then(place_in);
        let place = match (said, found) {
            // The file is where the test begins; the message knows where it failed.
            (Some(said), Some(found)) if found.file.ends_with(&said.file) => {
                Some(Place { file: said.file, ..found })
            }
            (Some(said), _) => Some(said),
            (None, found) => found,
        };
        CellTest {
            name,
            outcome,
            duration: self.duration,
            place: place.filter(|_| outcome == TestOutcome::Failed),
            message: message.filter(|_| outcome != TestOutcome::Passed),
            output: (!self.output.trim().is_empty()).then_some(self.output),
        }
    }
}

fn junit(text: &str) -> Read<Vec<CellTest>> {
    let mut reader = Reader::from_str(text);
    let (mut tests, mut case) = (Vec::new(), None::<Case>);
    let (mut within, mut seen) = (String::new(), false);
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Xml::Start(tag) => {
                let name = name_of(&tag);
                seen |= name.starts_with("testsuite");
                open(&mut case, &name, &tag)?;
                within = name;
            }
            Xml::Empty(tag) => {
                let name = name_of(&tag);
                seen |= name.starts_with("testsuite");
                open(&mut case, &name, &tag)?;
                if name == "testcase" {
                    tests.extend(case.take().map(Case::done));
                }
            }
            Xml::End(tag) => {
                if tag.local_name().as_ref() == b"testcase" {
                    tests.extend(case.take().map(Case::done));
                }
                within.clear();
            }
            Xml::Text(part) => {
                push(&mut case, &within, &part.decode().map_err(|error| error.to_string())?);
            }
            Xml::CData(part) => {
                push(&mut case, &within, &part.decode().map_err(|error| error.to_string())?);
            }
            Xml::GeneralRef(part) => {
                let name = part.decode().map_err(|error| error.to_string())?;
                let character = match part.resolve_char_ref().map_err(|error| error.to_string())? {
                    Some(character) => character.to_string(),
                    None => quick_xml::escape::resolve_xml_entity(&name).unwrap_or("").to_owned(),
                };
                push(&mut case, &within, &character);
            }
            Xml::Eof => break,
            _ => {}
        }
    }
    if case.is_some() {
        return Err("it ends in the middle".into());
    }
    if seen { Ok(tests) } else { Err("there is no test suite in it".into()) }
}

fn name_of(tag: &BytesStart<'_>) -> String {
    String::from_utf8_lossy(tag.local_name().as_ref()).into_owned()
}

fn open(case: &mut Option<Case>, name: &str, tag: &BytesStart<'_>) -> Read<()> {
    let attribute = |key: &str| -> Read<Option<String>> {
        let found = tag.try_get_attribute(key).map_err(|error| error.to_string())?;
        let value = found.map(|found| {
            let raw = String::from_utf8_lossy(&found.value).into_owned();
            quick_xml::escape::unescape(&raw).map(|text| text.into_owned())
        });
        value.transpose().map_err(|error| error.to_string())
    };
    if name == "testcase" {
        let seconds = attribute("time")?.and_then(|time| time.replace(',', "").parse().ok());
        *case = Some(Case {
            name: attribute("name")?.unwrap_or_default(),
            class: attribute("classname")?.unwrap_or_default(),
            file: attribute("file")?.filter(|file| !file.is_empty()),
            line: attribute("line")?.and_then(|line| line.parse().ok()),
            duration: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            ..Case::default()
        });
        return Ok(());
    }
    let Some(case) = case else { return Ok(()) };
    let outcome = match name {
        "failure" | "error" => TestOutcome::Failed,
        "skipped" => TestOutcome::Skipped,
        _ => return Ok(()),
    };
    if case.outcome != Some(TestOutcome::Failed) {
        case.outcome = Some(outcome);
        case.message = attribute("message")?;
    }
    Ok(())
}

fn push(case: &mut Option<Case>, within: &str, text: &str) {
    let Some(case) = case else { return };
    match within {
        "failure" | "error" | "skipped" => case.text.push_str(text),
        "system-out" | "system-err" => case.output.push_str(text),
        _ => {}
    }
}

/// A line of libtest, as far as it is about a test.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    #[serde(default)]
    name: String,
    exec_time: Option<f64>,
    stdout: Option<String>,
    message: Option<String>,
}

fn libtest(text: &str) -> Read<Vec<CellTest>> {
    let mut tests = Vec::new();
    let mut seen = false;
    for (number, line) in text.lines().enumerate() {
        // Programs print between the lines.
        if !line.trim_start().starts_with('{') {
            continue;
        }
        let line: Line = match serde_json::from_str(line) {
            Ok(line) => line,
            Err(_) if !line.contains("\"event\"") => continue,
            Err(error) => return Err(format!("line {}: {error}", number + 1)),
        };
        seen = true;
        let outcome = match (line.kind.as_str(), line.event.as_str()) {
            ("test" | "bench", "ok") => TestOutcome::Passed,
            ("test" | "bench", "failed" | "timeout") => TestOutcome::Failed,
            ("test" | "bench", "ignored") => TestOutcome::Skipped,
            _ => continue,
        };
        let said = line.message.or_else(|| line.stdout.clone());
        let message = said.filter(|_| outcome != TestOutcome::Passed);
        let place = message.as_deref().and_then(place_in);
        tests.push(CellTest {
            name: line.name,
            outcome,
            duration: line.exec_time.and_then(|time| Duration::try_from_secs_f64(time).ok()),
            place: place.filter(|_| outcome == TestOutcome::Failed),
            message,
            output: line.stdout.filter(|text| !text.trim().is_empty()),
        });
    }
    if seen { Ok(tests) } else { Err("no line of it is a test's".into()) }
}

/// The first place in a message that looks like `file.ext:12` or `file.ext:12:5`.
fn place_in(message: &str) -> Option<Place> {
    message.split(|c: char| c.is_whitespace() || "()[]'\"`,".contains(c)).find_map(|word| {
        let mut parts = word.splitn(4, ':');
        let (file, line) = (parts.next()?, parts.next()?);
        let name = file.rsplit('/').next()?;
        let (stem, extension) = name.rsplit_once('.')?;
        let sound = !stem.is_empty()
            && !extension.is_empty()
            && extension.chars().all(char::is_alphanumeric)
            && extension.starts_with(char::is_alphabetic);
        let line = line.parse().ok().filter(|line| *line > 0 && sound)?;
        let column = parts.next().and_then(|column| column.parse().ok()).unwrap_or(0);
        Some(Place { file: file.trim_start_matches("./").to_owned(), line, column })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use TestOutcome::{Failed, Passed, Skipped};

    fn outcomes(tests: &[CellTest]) -> Vec<(&str, TestOutcome)> {
        tests.iter().map(|test| (test.name.as_str(), test.outcome)).collect()
    }

    #[test]
    fn what_pytest_writes() {
        let text = r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="1" tests="4" time="0.1"><testcase classname="tests.test_db" name="test_ok[a&lt;b]" time="0.003" /><testcase classname="tests.test_db" name="test_bad" time="0.5"><failure message="assert 1 == 2">def test_bad():
&gt;       assert 1 == 2
E       assert 1 == 2

tests/test_db.py:17: AssertionError</failure><system-out>printed
</system-out></testcase><testcase classname="tests.test_db" name="test_skip" time="0"><skipped type="pytest.skip" message="no driver">tests/test_db.py:20: no driver</skipped></testcase><testcase classname="" name="tests.test_x" time="0"><error message="collection failure"><![CDATA[E <boom> & more]]></error></testcase></testsuite></testsuites>"#;
        let tests = read_results(text).unwrap();
        let names = [
            "tests.test_db::test_ok[a<b]",
            "tests.test_db::test_bad",
            "tests.test_db::test_skip",
            "tests.test_x",
        ];
        let all = names.into_iter().zip([Passed, Failed, Skipped, Failed]).collect::<Vec<_>>();
        assert_eq!(outcomes(&tests), all);
        let place = tests[1].place.as_ref().unwrap();
        assert_eq!((place.file.as_str(), place.line), ("tests/test_db.py", 17));
        assert_eq!(tests[1].duration, Some(Duration::from_millis(500)));
        assert_eq!(tests[1].output.as_deref(), Some("printed\n"));
        assert!(tests[2].message.as_deref().unwrap().starts_with("no driver"));
        assert_eq!(tests[3].message.as_deref(), Some("collection failure\nE <boom> & more"));
    }

    #[test]
    fn what_libtest_writes() {
        let text = "{ \"type\": \"suite\", \"event\": \"started\", \"test_count\": 3 }\n\
            a line of a program\n\
            { \"type\": \"test\", \"event\": \"started\", \"name\": \"a::ok\" }\n\
            { \"type\": \"test\", \"name\": \"a::ok\", \"event\": \"ok\", \"exec_time\": 0.25 }\n\
            { \"type\": \"test\", \"name\": \"a::bad\", \"event\": \"failed\", \"stdout\": \"thread 'a::bad' panicked at src/lib.rs:7:9:\\nno\\n\" }\n\
            { \"type\": \"test\", \"name\": \"a::later\", \"event\": \"ignored\" }\n\
            { \"type\": \"suite\", \"event\": \"failed\", \"passed\": 1, \"failed\": 1 }\n";
        let tests = read_results(text).unwrap();
        assert_eq!(
            outcomes(&tests),
            [("a::ok", Passed), ("a::bad", Failed), ("a::later", Skipped)]
        );
        let place = Place { file: "src/lib.rs".into(), line: 7, column: 9 };
        assert_eq!(tests[1].place, Some(place));
        assert_eq!(tests[0].duration, Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        for bad in
            ["", "hello", "<html></html>", "<testsuite><testcase name='a'>", "<a", "{\"x\": 1}"]
        {
            let error = read_results(bad).unwrap_err();
            assert!(error.to_string().contains("can't be read"), "{bad}: {error}");
            assert!(error.hint().unwrap().contains("JUnit"));
        }
        assert_eq!(read_results("<testsuites/>").unwrap(), []);
    }

    #[test]
    fn a_file_that_is_said_is_joined_with_the_line_that_is_found() {
        let text = "<testsuite><testcase name='a' file='test/a.js' line='3'><failure message='x'>at /src/test/a.js:9:4</failure></testcase>\
            <testcase name='b' file='test/b.js' line='3'><failure message='x'/></testcase></testsuite>";
        let tests = read_results(text).unwrap();
        let place = |test: &CellTest| test.place.clone().map(|place| (place.file, place.line));
        assert_eq!(place(&tests[0]), Some(("test/a.js".into(), 9)));
        assert_eq!(place(&tests[1]), Some(("test/b.js".into(), 3)));
    }
}
