//! Dates without a library: days since 1970 to a calendar.

/// Year, month, day, hour, minute and second (UTC) of milliseconds since 1970.
pub fn civil(millis: i64) -> (i64, u32, u32, u32, u32, u32) {
    let seconds = millis.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u32);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = (if mp < 10 { mp + 3 } else { mp - 9 }) as u32;
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year, month, day, rest / 3600, rest / 60 % 60, rest % 60)
}

/// `2026-08-01T08:00:00+00:00`.
pub fn iso(millis: i64) -> String {
    let (y, m, d, h, min, s) = civil(millis);
    format!("{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}+00:00")
}

/// `Sat Aug  1 08:00 2026`, as `zfs` prints a creation time.
pub fn zfs(millis: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (y, m, d, h, min, _) = civil(millis);
    let day = DAYS[millis.div_euclid(86_400_000).rem_euclid(7) as usize];
    format!("{day} {} {d:2} {h:02}:{min:02} {y}", MONTHS[m as usize - 1])
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_known_day() {
        assert_eq!(super::iso(1_785_571_200_000), "2026-08-01T08:00:00+00:00");
        assert_eq!(super::zfs(1_785_571_200_000), "Sat Aug  1 08:00 2026");
    }
}
