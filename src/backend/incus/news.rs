//! What happens to instances, told by the server for as long as somebody waits for one of them.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, Fail};
use crate::transport::Socket;

/// How long nothing may happen before the state is read once more.
const QUIET: Duration = Duration::from_secs(1);

/// A stream of what happens.
pub(super) struct News(Socket);

impl News {
    /// From now on.
    pub async fn of(client: &Client) -> Result<News, Fail> {
        client.happenings().await.map(News)
    }

    /// Waits until something has happened to an instance, but no longer than `until`, and not long when
    /// nothing is heard. False when the stream is over.
    pub async fn wait(&mut self, name: &str, until: Instant) -> bool {
        let end = until.min(Instant::now() + QUIET);
        let heard = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) if is_of(&text, name) => return true,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout_at(end.into(), heard).await.unwrap_or(true)
    }
}

/// Whether an event is about an instance.
fn is_of(event: &str, name: &str) -> bool {
    let event: Value = serde_json::from_str(event).unwrap_or_default();
    let source = event["metadata"]["source"].as_str().unwrap_or_default();
    let path = source.split('?').next().unwrap_or_default();
    path.strip_prefix("/1.0/instances/") == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_about_one_instance() {
        let event = |source: &str| {
            serde_json::json!({"type": "lifecycle", "metadata": {
                "action": "instance-restarted", "source": source}})
            .to_string()
        };
        assert!(is_of(&event("/1.0/instances/a"), "a"));
        assert!(is_of(&event("/1.0/instances/a?project=p"), "a"));
        for other in ["/1.0/instances/ab", "/1.0/instances/a/snapshots/s", "/1.0/images/a", ""] {
            assert!(!is_of(&event(other), "a"), "{other}");
        }
        assert!(!is_of("no json", "a"));
    }
}
