//! Formats tables: columns as wide as their widest cell, two spaces apart.

use super::{Escape, visible};

/// Formats rows under a header, with numbers aligned to the right.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    // A line break in a name would begin a new row.
    let flat = |cell: &String| cell.replace(['\n', '\t'], " ");
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| visible(&flat(cell), Escape::Rust).into_owned()).collect())
        .collect();
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let is_number: Vec<bool> = (0..header.len())
        .map(|column| {
            !rows.is_empty()
                && rows.iter().all(|row| row[column].starts_with(|c: char| c.is_ascii_digit()))
                && rows.iter().all(|row| row[column].chars().count() <= 24)
        })
        .collect();
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&header).chain(&rows) {
        let mut line = String::new();
        for ((cell, width), is_number) in row.iter().zip(&widths).zip(&is_number) {
            let gap = " ".repeat(width - cell.chars().count());
            let cell = if *is_number { format!("{gap}{cell}") } else { format!("{cell}{gap}") };
            line.push_str(&cell);
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "7".to_owned()], vec!["long".into(), "1200".into()]];
        assert_eq!(table(&["NAME", "DONE"], &rows), "NAME  DONE\na        7\nlong  1200\n");
        assert_eq!(table(&["NAME", "DONE"], &[]), "NAME  DONE\n");
    }
}
