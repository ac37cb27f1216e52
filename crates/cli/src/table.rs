//! Plain tables: numbers to the right, words to the left, two spaces between columns.

/// Lays out rows under a header. Every row has as many cells as the header.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        assert_eq!(
            row.len(),
            header.len(),
            "a row has another number of cells than the header"
        );
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let number = |column: usize| {
        rows.iter().all(|row| {
            row[column].is_empty()
                || row[column].starts_with(|c: char| c.is_ascii_digit() || c == '-')
        })
    };
    let right: Vec<bool> = (0..header.len()).map(number).collect();
    let mut text = String::new();
    let head: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for ((cell, &width), &right) in row.iter().zip(&widths).zip(&right) {
            let pad = " ".repeat(width - cell.chars().count());
            let (before, after) = if right {
                (pad, String::new())
            } else {
                (String::new(), pad)
            };
            line.push_str(&format!("{before}{cell}{after}  "));
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
    fn numbers_stand_right_and_words_left() {
        let rows = vec![
            vec!["q".into(), "1".into()],
            vec!["gate".into(), "100".into()],
        ];
        assert_eq!(
            table(&["name", "n"], &rows),
            "name    n\nq       1\ngate  100\n"
        );
    }
}
