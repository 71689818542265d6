//! Reads a TOML document key by key and collects every mistake with its place.
//!
//! A derived deserializer stops at its first error and knows neither the file nor what would have been
//! allowed; an operator wants all mistakes of a file at once. [`Section`] hands out values, remembers
//! which keys were asked for, and reports the others as unknown when it is finished.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest value repeated in a message; the rest is cut.
const VALUE_CHARS_MAX: usize = 60;

/// One mistake: `FILE:LINE: key = value: what is allowed`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file, as the operator named it.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// The key as written in the file.
    pub key: String,
    /// The value as written, `(missing)`, or `(hidden)` for a secret.
    pub value: String,
    /// What is allowed there.
    pub allowed: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} = {}: {}", self.file.display(), self.line, self.key, self.value, self.allowed)
    }
}

/// One file being read: its text, and what was found wrong with it so far.
pub struct Reader {
    file: PathBuf,
    text: String,
    secret: bool,
    errors: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<String>>,
}

impl Reader {
    /// Reads `text`, which came from `file`.
    pub fn new(file: &Path, text: String) -> Self {
        Self {
            file: file.to_owned(),
            text,
            secret: false,
            errors: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Like [`Reader::new`] for a file of secrets: no message repeats a value or a line of it.
    pub fn new_secret(file: &Path, text: String) -> Self {
        Self { secret: true, ..Self::new(file, text) }
    }

    /// Parses the document. `None` after syntax errors, which are all reported.
    pub fn parse(&self) -> Option<Spanned<DeTable<'_>>> {
        let (document, errors) = DeTable::parse_recoverable(&self.text);
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let line = self.line(span.start);
            let written = self.text.lines().nth(line - 1).unwrap_or("").trim();
            let (key, value) = written.split_once('=').unwrap_or((written, "(missing)"));
            let allowed = format!("TOML syntax: {}", error.message().replace('\n', "; "));
            let value = if value.trim().is_empty() { "(missing)" } else { value.trim() };
            self.push(line, key.trim(), self.shown(value), allowed);
        }
        errors.is_empty().then_some(document)
    }

    /// The root of a parsed document.
    pub fn root<'a>(&'a self, document: &'a Spanned<DeTable<'a>>) -> Section<'a> {
        Section { reader: self, name: String::new(), table: document.get_ref(), at: 0, asked: Vec::new() }
    }

    /// The file this reads.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Resolves a path of the file against the file's own directory.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Notes something an operator should know that is no mistake.
    pub fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Adds mistakes found in another file that this one names.
    pub fn absorb(&self, other: Self) {
        self.errors.borrow_mut().extend(other.errors.into_inner());
        self.warnings.borrow_mut().extend(other.warnings.into_inner());
    }

    /// The mistakes, in the order of the lines within each file, and the warnings.
    pub fn into_report(self) -> (Vec<ConfigError>, Vec<String>) {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| (error.file != self.file, error.file.clone(), error.line));
        (errors, self.warnings.into_inner())
    }

    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.iter().filter(|&&octet| octet == b'\n').count()
    }

    fn written(&self, span: Range<usize>) -> String {
        self.shown(self.text.get(span).unwrap_or(""))
    }

    fn shown(&self, value: &str) -> String {
        if self.secret {
            return "(hidden)".to_owned();
        }
        let mut line = value.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() > VALUE_CHARS_MAX {
            line = line.chars().take(VALUE_CHARS_MAX).collect::<String>() + "…";
        }
        line
    }

    fn push(&self, line: usize, key: &str, value: String, allowed: impl Into<String>) {
        // TOML's escapes can put anything into a text; a report stays one line.
        let plain = |text: &str| text.replace(|c: char| c.is_control(), "?");
        let (key, value, allowed) = (plain(key), plain(&value), plain(&allowed.into()));
        self.errors.borrow_mut().push(ConfigError { file: self.file.clone(), line, key, value, allowed });
    }
}

/// A table of the document, read key by key.
pub struct Section<'a> {
    reader: &'a Reader,
    name: String,
    table: &'a DeTable<'a>,
    at: usize,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The file it stands in.
    pub fn reader(&self) -> &'a Reader {
        self.reader
    }

    /// The value of `key`, when it is there.
    pub fn value(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.asked.push(key);
        let (name, value) = self.table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(Field { reader: self.reader, key: name.get_ref().to_string(), value, span: value.span() })
    }

    /// The value of `key`; reports its absence with what is `allowed`.
    pub fn required(&mut self, key: &'static str, allowed: &str) -> Option<Field<'a>> {
        let field = self.value(key);
        if field.is_none() {
            self.missing(key, allowed);
        }
        field
    }

    /// A text, or `default` when the key is absent or wrong (which is reported).
    pub fn text(&mut self, key: &'static str, default: &str, allowed: &str) -> String {
        self.value(key).and_then(|field| field.text(allowed)).unwrap_or(default).to_owned()
    }

    /// A number of `range`, or `default` when the key is absent or wrong (which is reported).
    pub fn number(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>, unit: &str) -> u64 {
        self.value(key).and_then(|field| field.number(range, unit)).unwrap_or(default)
    }

    /// A truth value, or `default`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.value(key).and_then(|field| field.flag()).unwrap_or(default)
    }

    /// The elements of a list of texts; none when the key is absent.
    pub fn list(&mut self, key: &'static str, allowed: &str) -> Vec<Field<'a>> {
        self.value(key).map(|field| field.list(allowed)).unwrap_or_default()
    }

    /// The table `[key]` (or an inline one), when it is there.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.value(key)?.section(format!("[{key}]"))
    }

    /// The tables `[[key]]`; none when there are none.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(field) = self.value(key) else { return Vec::new() };
        let Some(array) = field.value.get_ref().as_array() else {
            field.reject(format!("tables [[{key}]]"));
            return Vec::new();
        };
        let name = format!("[[{key}]]");
        array.iter().filter_map(|value| field.element(value).section(name.clone())).collect()
    }

    /// The table `[key]`, or the tables `[[key]]`, and whether they are the latter; none when there are none.
    pub fn one_or_more(&mut self, key: &'static str) -> (Vec<Section<'a>>, bool) {
        let Some(field) = self.value(key) else { return (Vec::new(), false) };
        let Some(array) = field.value.get_ref().as_array() else {
            return (field.section(format!("[{key}]")).into_iter().collect(), false);
        };
        if array.is_empty() {
            field.reject(format!("a table [{key}] or tables [[{key}]]"));
        }
        let name = format!("[[{key}]]");
        (array.iter().filter_map(|value| field.element(value).section(name.clone())).collect(), true)
    }

    /// Reports an absent key at the head of the section.
    pub fn missing(&self, key: &str, allowed: &str) {
        let place = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
        self.reader.push(
            self.reader.line(self.at),
            key,
            "(missing)".into(),
            format!("required{place}: {allowed}"),
        );
    }

    /// Reports every key nobody asked for.
    pub fn finish(self) {
        for (name, value) in self.table.iter() {
            let key: &str = name.get_ref();
            if self.asked.contains(&key) {
                continue;
            }
            let shown = match value.get_ref() {
                DeValue::Table(_) => "(table)".to_owned(),
                DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                    "(tables)".to_owned()
                }
                _ => self.reader.written(value.span()),
            };
            let place = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
            let allowed = format!("unknown key{place}; known are {}", self.asked.join(", "));
            self.reader.push(self.reader.line(name.span().start), key, shown, allowed);
        }
    }
}

/// A value with its place.
#[derive(Clone)]
pub struct Field<'a> {
    reader: &'a Reader,
    key: String,
    value: &'a Spanned<DeValue<'a>>,
    span: Range<usize>,
}

impl<'a> Field<'a> {
    /// Reports the value as wrong.
    pub fn reject(&self, allowed: impl Into<String>) {
        let line = self.reader.line(self.span.start);
        self.reader.push(line, &self.key, self.reader.written(self.span.clone()), allowed);
    }

    /// The file it stands in.
    pub fn reader(&self) -> &'a Reader {
        self.reader
    }

    /// Its text; anything else is reported with what is `allowed`.
    pub fn text(&self, allowed: &str) -> Option<&'a str> {
        let text = self.value.get_ref().as_str();
        if text.is_none() {
            self.reject(allowed);
        }
        text
    }

    /// Its text as a `T`; anything else is reported with what is `allowed`.
    pub fn parse<T: std::str::FromStr>(&self, allowed: &str) -> Option<T> {
        let parsed = self.value.get_ref().as_str().and_then(|text| text.parse().ok());
        if parsed.is_none() {
            self.reject(allowed);
        }
        parsed
    }

    /// Its number when it lies in `range`; anything else is reported.
    pub fn number(&self, range: RangeInclusive<u64>, unit: &str) -> Option<u64> {
        let allowed = format!("a number from {} to {} ({unit})", range.start(), range.end());
        self.number_or(range, &allowed)
    }

    /// Its number when it lies in `range`; anything else is reported with what is `allowed`.
    pub fn number_or(&self, range: RangeInclusive<u64>, allowed: &str) -> Option<u64> {
        let number = self
            .value
            .get_ref()
            .as_integer()
            .and_then(|integer| u64::from_str_radix(integer.as_str(), integer.radix()).ok())
            .filter(|number| range.contains(number));
        if number.is_none() {
            self.reject(allowed);
        }
        number
    }

    /// Its truth value; anything else is reported.
    pub fn flag(&self) -> Option<bool> {
        let flag = self.value.get_ref().as_bool();
        if flag.is_none() {
            self.reject("true or false");
        }
        flag
    }

    /// Its elements; anything but a list is reported with what is `allowed`.
    pub fn list(&self, allowed: &str) -> Vec<Field<'a>> {
        let Some(array) = self.value.get_ref().as_array() else {
            self.reject(format!("a list: {allowed}"));
            return Vec::new();
        };
        array.iter().map(|value| self.element(value)).collect()
    }

    /// Its elements, of which there must be at least one.
    pub fn some_list(&self, allowed: &str) -> Vec<Field<'a>> {
        if self.is_empty_list() {
            self.reject(format!("at least one of: {allowed}"));
        }
        self.list(allowed)
    }

    /// Whether it is a text.
    pub fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// Whether it is a truth value.
    pub fn is_flag(&self) -> bool {
        self.value.get_ref().is_bool()
    }

    /// Whether it is an empty list.
    pub fn is_empty_list(&self) -> bool {
        self.value.get_ref().as_array().is_some_and(|array| array.is_empty())
    }

    /// It as a table; anything else is reported.
    pub fn section(&self, name: String) -> Option<Section<'a>> {
        let Some(table) = self.value.get_ref().as_table() else {
            self.reject(format!("a table {name}"));
            return None;
        };
        Some(Section { reader: self.reader, name, table, at: self.span.start, asked: Vec::new() })
    }

    fn element(&self, value: &'a Spanned<DeValue<'a>>) -> Field<'a> {
        Field { reader: self.reader, key: self.key.clone(), value, span: value.span() }
    }
}
