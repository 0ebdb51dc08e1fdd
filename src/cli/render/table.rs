//! Tables and lists of fields, laid out as text.

use super::text::escape;

/// Lays out `rows` under `header`, columns two spaces apart. Cells are made harmless; an empty one is shown as `-`.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let cell = |text: &str| if text.is_empty() { "-".to_owned() } else { escape(text).into_owned() };
    let rows: Vec<[String; N]> = rows.iter().map(|row| std::array::from_fn(|i| cell(&row[i]))).collect();
    let width = |i: usize| {
        let cells = rows.iter().map(|row| row[i].chars().count());
        cells.chain([header[i].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    let mut line = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let pad = width - cell.chars().count();
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', pad + 2));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(header);
    for row in &rows {
        line(std::array::from_fn(|i| row[i].as_str()));
    }
    out
}

/// Lays out `rows` without a header, as [`table`] does.
pub fn rows<const N: usize>(rows: &[[String; N]]) -> String {
    let text = table([""; N], rows);
    text.split_once('\n').map_or(String::new(), |(_, rows)| rows.to_owned())
}

/// Lays out one thing as lines of `name: value`, values aligned. A field without a value is left out.
pub fn fields(fields: &[(&str, String)]) -> String {
    let shown = || fields.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    shown()
        .map(|(name, value)| {
            format!("{:<width$}  {}\n", format!("{name}:"), escape(value), width = width + 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_harmless() {
        let rows = [["dev".to_owned(), String::new()], ["\x1b[2Jx".to_owned(), "b".to_owned()]];
        assert_eq!(table(["NAME", "IP"], &rows), "NAME      IP\ndev       -\n\\x1b[2Jx  b\n");
        assert_eq!(table(["NAME", "IP"], &[]), "NAME  IP\n");
    }

    #[test]
    fn fields_are_aligned_and_empty_ones_left_out() {
        let text =
            fields(&[("name", "dev".to_owned()), ("address", String::new()), ("vcpu", "2".to_owned())]);
        assert_eq!(text, "name:  dev\nvcpu:  2\n");
    }
}
