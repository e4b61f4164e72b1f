//! How `zfs` prints tables and sizes.

/// Rows with a head, padded to columns; `bare` ones have no head and tabs between.
pub fn table(head: &[&str], rows: &[Vec<String>], bare: bool) -> String {
    let mut out = String::new();
    if bare {
        for row in rows {
            out += &(row.join("\t") + "\n");
        }
        return out;
    }
    let head: Vec<String> = head.iter().map(|h| h.to_uppercase()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let wide = |i: usize| all().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|i| wide(i).unwrap_or(0)).collect();
    for row in all() {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let (name, width) = (head[i].as_str(), widths[i]);
            let sep = if i == 0 { "" } else { "  " };
            // Sizes stand at the right of their column; the last one ends where it ends.
            if ["USED", "AVAIL", "REFER", "AVAILABLE", "REFERENCED"].contains(&name) {
                line += &format!("{sep}{cell:>width$}");
            } else if i + 1 == row.len() {
                line += &format!("{sep}{cell}");
            } else {
                line += &format!("{sep}{cell:<width$}");
            }
        }
        out += &(line + "\n");
    }
    out
}

/// A size with three digits or so: `96K`, `1.50G`.
pub fn human(bytes: i64) -> String {
    let mut size = bytes as f64;
    let mut unit = "";
    for next in ["K", "M", "G", "T", "P"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    match size {
        _ if unit.is_empty() => format!("{bytes}B"),
        whole if whole.fract() == 0.0 => format!("{whole:.0}{unit}"),
        small if small < 10.0 => format!("{small:.2}{unit}"),
        middle if middle < 100.0 => format!("{middle:.1}{unit}"),
        large => format!("{large:.0}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{human, table};

    #[test]
    fn sizes() {
        let all = [0, 512, 96 << 10, 3 << 29, 25_000_000_000].map(human);
        assert_eq!(all, ["0B", "512B", "96K", "1.50G", "23.3G"]);
    }

    #[test]
    fn columns() {
        let rows = [vec!["tank/long".into(), "1.50G".into(), "/mnt".into()]];
        let said = table(&["name", "used", "mountpoint"], &rows, false);
        assert_eq!(said, "NAME        USED  MOUNTPOINT\ntank/long  1.50G  /mnt\n");
        assert_eq!(table(&["name"], &rows, true), "tank/long\t1.50G\t/mnt\n");
    }
}
