//! Each connection's frames, written down as they pass.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::options::Options;

/// The transcript of one connection: `RELEASE_N.jsonl`, a line a frame.
pub struct Transcript {
    file: Option<Mutex<File>>,
}

impl Transcript {
    /// The transcript of connection `number`; one that writes nothing unless it was asked for.
    pub fn open(options: &Options, number: u64) -> Self {
        let file = options.transcript.as_ref().and_then(|folder| {
            std::fs::create_dir_all(folder).ok()?;
            let name = format!("{}_{number}.jsonl", options.release.name());
            File::create(folder.join(name)).ok().map(Mutex::new)
        });
        Self { file }
    }

    /// Writes down a frame. One that is not JSON is written as text.
    pub fn line(&self, direction: &str, text: &str) {
        let Some(file) = &self.file else { return };
        let frame = match serde_json::from_str::<Value>(text) {
            // As it was sent, to the letter, as long as it is one line.
            Ok(_) if !text.contains('\n') => text.to_owned(),
            Ok(value) => value.to_string(),
            Err(_) => Value::from(text).to_string(),
        };
        let line = format!("{{\"dir\":\"{direction}\",\"frame\":{frame}}}\n");
        let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}
