//! HTML by parts. All text goes through [`escape`]; nothing else writes it.

use super::table::Table;
use std::fmt::Write;

/// Makes text of any kind safe between tags and in attributes with quotes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Not allowed in HTML or XML at all.
            control if control.is_control() && !matches!(control, '\n' | '\t') => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

/// Keeps numbers and their units on one line.
fn typeset(text: &str) -> String {
    [" %", " ms", " Mbit/s"]
        .iter()
        .fold(text.to_owned(), |text, unit| text.replace(unit, &format!("\u{a0}{}", &unit[1..])))
}

/// Makes JSON safe inside a script: no `<`, so that nothing in it ends the script.
pub fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    text.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// A page that grows.
#[derive(Default)]
pub struct Html {
    text: String,
}

impl Html {
    /// Returns what was written.
    pub fn into_text(self) -> String {
        self.text
    }

    /// Adds markup as it is: for constants and for drawings.
    pub fn raw(&mut self, markup: &str) -> &mut Self {
        self.text.push_str(markup);
        self.text.push('\n');
        self
    }

    /// Adds an element with text.
    pub fn element(&mut self, tag: &str, text: &str) -> &mut Self {
        self.attributed(tag, &[], text)
    }

    /// Adds an element with attributes and text.
    pub fn attributed(&mut self, tag: &str, attributes: &[(&str, &str)], text: &str) -> &mut Self {
        self.open(tag, attributes);
        self.text.push_str(&typeset(&escape(text)));
        let _ = writeln!(self.text, "</{tag}>");
        self
    }

    /// Begins an element.
    pub fn open(&mut self, tag: &str, attributes: &[(&str, &str)]) -> &mut Self {
        let _ = write!(self.text, "<{tag}");
        for (name, value) in attributes {
            let _ = write!(self.text, " {name}=\"{}\"", escape(value));
        }
        self.text.push('>');
        self
    }

    /// Ends an element.
    pub fn close(&mut self, tag: &str) -> &mut Self {
        let _ = writeln!(self.text, "</{tag}>");
        self
    }

    /// Adds a list.
    pub fn list(&mut self, items: &[String]) -> &mut Self {
        if items.is_empty() {
            return self;
        }
        self.open("ul", &[]);
        items.iter().for_each(|item| {
            self.element("li", item);
        });
        self.close("ul")
    }

    /// Adds a table in a container of its own, which scrolls when the table is wider than the page.
    pub fn table(&mut self, table: &Table) -> &mut Self {
        let numeric: Vec<bool> = (0..table.columns.len()).map(|column| table.numeric(column)).collect();
        // Not a caption inside: that would scroll with the table.
        self.attributed("p", &[("class", "caption")], &table.caption);
        let label = ("aria-label", table.caption.as_str());
        self.open("div", &[("class", "scroll"), ("role", "region"), ("tabindex", "0"), label]);
        self.open("table", &[label]);
        self.open("thead", &[]).open("tr", &[]);
        for (title, numeric) in table.columns.iter().zip(&numeric) {
            self.attributed("th", &[("scope", "col"), ("class", class(*numeric))], title);
        }
        self.close("tr").close("thead").open("tbody", &[]);
        for row in &table.rows {
            self.open("tr", &[]);
            for (cell, numeric) in row.iter().zip(&numeric) {
                self.attributed("td", &[("class", verdict(cell).unwrap_or_else(|| class(*numeric)))], cell);
            }
            self.close("tr");
        }
        self.close("tbody").close("table").close("div")
    }
}

fn class(numeric: bool) -> &'static str {
    if numeric { "number" } else { "word" }
}

fn verdict(cell: &str) -> Option<&'static str> {
    match cell {
        "met" | "within" => Some("good"),
        "outside" => Some("bad"),
        cell if cell.starts_with("not met") || cell.starts_with("no frame came") => Some("bad"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<a href=\"x\">'&\u{7}"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;\u{fffd}");
        let mut html = Html::default();
        html.attributed("p", &[("title", "\"><script>")], "</p><script>");
        assert_eq!(html.into_text().matches('<').count(), 2);
    }

    #[test]
    fn data_cannot_end_its_script() {
        let text = json(&"</script><!--");
        assert!(!text.contains('<'));
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), "</script><!--");
    }

    #[test]
    fn tables_escape_and_align() {
        let mut table = Table::new("<caption>", &["<name>", "figure"]);
        table.row(vec!["<b>".into(), "1.5".into()]);
        let mut html = Html::default();
        html.table(&table);
        let text = html.into_text();
        assert!(
            text.contains("&lt;b&gt;") && text.contains("&lt;caption&gt;") && text.contains("&lt;name&gt;")
        );
        assert!(text.contains("<td class=\"number\">1.5</td>"), "{text}");
    }
}
