//! Formats tables: columns as wide as their widest cell, two spaces apart.

use std::time::Duration;

use super::{Escape, visible};

/// The width of tables for people, also where the output is not a terminal, so that a script sees
/// what a person sees.
const WIDTH: usize = 80;

/// The spaces between two columns.
const GAP: usize = 2;

/// A column is not cut to fewer characters than this.
const NARROWEST: usize = 6;

/// Formats rows under a header, with numbers aligned to the right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    write(header, &escaped(rows))
}

/// The same within 80 columns. The cells of columns that may be cut end with `…` where they have no
/// room. If that is not enough, these columns are left out, the last one first.
pub(super) fn fitted(header: &[&str], rows: &[Vec<String>], may_be_cut: &[&str]) -> String {
    let (mut header, mut rows) = (header.to_vec(), escaped(rows));
    loop {
        let mut widths = widths(&header, &rows);
        let is_cut = |column: &usize| may_be_cut.contains(&header[*column]);
        while total(&widths) > WIDTH {
            let columns = (0..header.len()).filter(is_cut);
            let widest = columns.filter(|column| widths[*column] > NARROWEST);
            let Some(column) = widest.max_by_key(|column| widths[*column]) else { break };
            widths[column] -= 1;
        }
        let last = (0..header.len()).rfind(is_cut);
        let Some(column) = last.filter(|_| total(&widths) > WIDTH) else {
            for row in &mut rows {
                for (cell, width) in row.iter_mut().zip(&widths) {
                    cut(cell, *width);
                }
            }
            return write(&header, &rows);
        };
        header.remove(column);
        for row in &mut rows {
            row.remove(column);
        }
    }
}

/// A line break in a name would begin a new row, and control characters would do worse.
fn escaped(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let escape =
        |cell: &String| visible(&cell.replace(['\n', '\t'], " "), Escape::Rust).into_owned();
    rows.iter().map(|row| row.iter().map(escape).collect()).collect()
}

fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

fn cut(cell: &mut String, width: usize) {
    if cell.chars().count() > width {
        *cell = cell.chars().take(width - 1).chain(['…']).collect();
    }
}

fn write(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths = widths(header, rows);
    let is_number: Vec<bool> = (0..header.len())
        .map(|column| {
            !rows.is_empty()
                && rows.iter().all(|row| row[column].starts_with(|c: char| c.is_ascii_digit()))
                && rows.iter().all(|row| row[column].chars().count() <= 24)
        })
        .collect();
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (at, ((cell, width), is_number)) in row.iter().zip(&widths).zip(&is_number).enumerate()
        {
            let gap = " ".repeat(width - cell.chars().count());
            // The first column names the row.
            let is_right = *is_number && at > 0;
            let cell = if is_right { format!("{gap}{cell}") } else { format!("{cell}{gap}") };
            line.push_str(&cell);
            line.push_str(&" ".repeat(GAP));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A time span in its largest unit: `12s`, `5m`, `7h`, `12d`.
pub(super) fn age(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A number in at most six characters: from a million on with one decimal.
pub(super) fn brief_count(count: u64) -> String {
    match count {
        ..1_000_000 => count.to_string(),
        1_000_000..1_000_000_000 => tenths(count, 1_000_000, "M"),
        _ => tenths(count, 1_000_000_000, "G"),
    }
}

/// Rounds down, so that a job with one subtask left does not look done.
fn tenths(count: u64, unit: u64, name: &str) -> String {
    format!("{}.{}{name}", count / unit, count % unit / (unit / 10))
}

/// A size in at most six characters.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        ..10_000 => format!("{bytes}B"),
        10_000..10_240_000 => format!("{}K", bytes / 1_024),
        _ => format!("{}M", bytes / (1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(&["a", "7"]), row(&["long", "1200"])];
        assert_eq!(table(&["NAME", "DONE"], &rows), "NAME  DONE\na        7\nlong  1200\n");
        assert_eq!(table(&["NAME", "DONE"], &[]), "NAME  DONE\n");
    }

    #[test]
    fn a_table_has_no_more_than_80_columns() {
        let long = "x".repeat(90);
        let rows = [row(&["id", "short", &long, &long]), row(&["id-2", &"y".repeat(9), "", "z"])];
        let header = ["ID", "TASK", "QUEUE", "NAME"];
        let text = fitted(&header, &rows, &["TASK", "QUEUE", "NAME"]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{text}");
        let cells: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(cells[..2], ["id", "short"]);
        assert!(cells[2].ends_with('…') && cells[3].ends_with('…'), "{text}");
        assert_eq!(lines[1].chars().count(), WIDTH, "no room is wasted: {text}");
        assert!(lines[2].starts_with("id-2  yyyyyyyyy "), "{text}");
    }

    #[test]
    fn columns_without_room_are_left_out() {
        let rows = [row(&[&"i".repeat(70), "task", "queue-of-many"])];
        let text = fitted(&["ID", "TASK", "QUEUE"], &rows, &["TASK", "QUEUE"]);
        assert_eq!(text.lines().next(), Some(format!("ID{}TASK", " ".repeat(70)).as_str()));
    }

    #[test]
    fn ages_counts_and_sizes_are_short() {
        let ages = [0, 59, 60, 3_599, 3_600, 172_799, 172_800, 8_640_000];
        let ages = ages.map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0s", "59s", "1m", "59m", "1h", "47h", "2d", "100d"]);
        let counts = [0, 999_999, 1_000_000, 1_999_999, 99_950_000, 4_294_967_296];
        assert_eq!(counts.map(brief_count), ["0", "999999", "1.0M", "1.9M", "99.9M", "4.2G"]);
        assert_eq!([0, 9_999, 10_240, 16 << 20].map(size), ["0B", "9999B", "10K", "16M"]);
    }
}
