//! When cron jobs are due, and that they are run.

use std::sync::Weak;
use std::time::Duration;

use serde_json::{Value, json};

use crate::dispatch;
use crate::nas::Nas;
use crate::time::civil;

const MINUTE: i64 = 60_000;

/// Runs what is due, every minute, until the server is gone.
pub async fn follow(nas: Weak<Nas>) {
    let mut seen = None;
    loop {
        let Some(strong) = nas.upgrade() else { return };
        let minute = strong.now().div_euclid(MINUTE);
        // The minute that it starts in is over already.
        if seen.replace(minute).is_some_and(|last| last != minute) && !strong.restarting() {
            let session = strong.internal();
            for row in strong.rows.all("cronjob").iter().filter(|r| r["enabled"] == json!(true)) {
                let Some(method) = strong.table(None).get("cronjob.run").cloned() else { continue };
                if due(&row["schedule"], minute * MINUTE) {
                    // As the crontab does: the middleware is asked to run it as a job.
                    let _ =
                        dispatch::run(&session, method, vec![row["id"].clone(), true.into()], None)
                            .await;
                }
            }
        }
        drop(strong);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Whether a schedule names this minute.
fn due(schedule: &Value, millis: i64) -> bool {
    let (_, month, day, hour, minute, _) = civil(millis);
    let weekday = (millis.div_euclid(24 * 60 * MINUTE) + 4).rem_euclid(7) as u32;
    let text = |key: &str| schedule[key].as_str().unwrap_or("*");
    let names = |key: &str, names: &[&str], first: u32| {
        let mut text = text(key).to_lowercase();
        for (i, name) in names.iter().enumerate() {
            text = text.replace(name, &(first + i as u32).to_string());
        }
        text
    };
    let months =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let (dom, dow) = (text("dom"), names("dow", &days, 0));
    let on_day = within(dom, day, 1, 31);
    let on_weekday = within(&dow, weekday, 0, 7) || (weekday == 0 && within(&dow, 7, 0, 7));
    // Where both are given, either will do.
    let fits = match (dom.starts_with('*'), dow.starts_with('*')) {
        (false, false) => on_day || on_weekday,
        _ => on_day && on_weekday,
    };
    fits && within(text("minute"), minute, 0, 59)
        && within(text("hour"), hour, 0, 23)
        && within(&names("month", &months, 1), month, 1, 12)
}

/// Whether one field of a crontab holds a number: `*`, `5`, `1-5`, `*/15`, `1-30/2`, and lists of those.
fn within(field: &str, number: u32, least: u32, most: u32) -> bool {
    field.split(',').any(|part| {
        let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, s.parse().ok()));
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (Some(least), Some(most)),
            Some((from, to)) => (from.parse().ok(), to.parse().ok()),
            None => {
                let only: Option<u32> = range.parse().ok();
                (only, if step.is_some() { Some(most) } else { only })
            }
        };
        match (from, to) {
            (Some(from), Some(to)) => {
                (from..=to).contains(&number)
                    && (number - from).is_multiple_of(step.unwrap_or(1).max(1))
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::due;

    /// Saturday, the first of August 2026, 08:00.
    const AT: i64 = 1_785_571_200_000;

    #[test]
    fn schedules() {
        let schedule = |minute: &str, hour: &str, dom: &str, month: &str, dow: &str| {
            due(
                &json!({"minute": minute, "hour": hour, "dom": dom, "month": month, "dow": dow}),
                AT,
            )
        };
        assert!(schedule("*", "*", "*", "*", "*"));
        assert!(schedule("00", "8", "1", "8", "6"));
        assert!(schedule("*/15", "6-10/2", "*", "aug", "sat"));
        assert!(schedule("0,30", "*", "15", "*", "6"));
        assert!(schedule("0", "8", "1", "*", "mon"));
        assert!(!schedule("1", "*", "*", "*", "*"));
        assert!(!schedule("0", "7-9/2", "2", "*", "sun"));
        assert!(!schedule("0", "*", "*", "*", "1-5"));
        assert!(!schedule("x", "*", "*", "*", "*"));
    }
}
