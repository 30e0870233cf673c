//! Rust source as text with its comments and literals set apart: enough for rules about words, without a parser.

use std::ops::Range;

/// One source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text as it is.
    pub(crate) text: String,
    /// The text with comments and the contents of literals blanked out; same length, same lines.
    pub(crate) code: String,
    /// Where string literals stand, with their quotes.
    pub(crate) strings: Vec<Range<usize>>,
    line_starts: Vec<usize>,
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Reads a text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let (code, strings) = blank(&text);
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let tests = inline_tests(&code);
        Self {
            text,
            code,
            strings,
            line_starts,
            tests,
        }
    }

    /// The line, from 1, that holds the byte at `offset`.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// The text of a line, from 1; empty outside the file.
    pub(crate) fn line(&self, number: usize) -> &str {
        self.text.lines().nth(number.saturating_sub(1)).unwrap_or("")
    }

    /// Whether the byte at `offset` is inside an inline `#[cfg(test)]` module.
    pub(crate) fn in_inline_tests(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// Where `word` stands in the code as a word or path of its own, not as part of a longer one.
    pub(crate) fn find_word<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        find_word(&self.code, word)
    }

    /// The full paths that `use` declarations bring in, groups taken apart, with their offsets.
    pub(crate) fn imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        for at in find_word(&self.code, "use") {
            let body = &self.code[at + 3..];
            let end = body.find(';').unwrap_or(body.len());
            let before = self.code[..at].trim_end();
            // `use<'a>` in a return type is a bound, not a declaration.
            if body.starts_with('<') || before.ends_with('+') {
                continue;
            }
            Tree {
                tokens: tokens(&body[..end]),
                at: at + 3,
                next: 0,
            }
            .expand("", &mut imports);
        }
        imports
    }
}

/// Where `word` stands in `code` by itself.
pub(crate) fn find_word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let open = before.is_some_and(inside) && word.starts_with(inside);
        let closed = after.is_some_and(inside) && word.ends_with(inside);
        (!open && !closed).then_some(at)
    })
}

/// The bracket that closes the one at `open`, in blanked code.
pub(crate) fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn inline_tests(code: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let rest = &code[at..];
        let (Some(open), semicolon) = (rest.find('{'), rest.find(';')) else {
            continue;
        };
        if semicolon.is_some_and(|semicolon| semicolon < open) {
            continue;
        }
        if let Some(end) = closing(code, at + open) {
            ranges.push(at..end + 1);
        }
    }
    ranges
}

/// Replaces comments and the contents of string and character literals by spaces; newlines stay. Tells where the strings
/// were.
fn blank(text: &str) -> (String, Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_end(bytes, at),
            b'"' => string_end(bytes, at + 1),
            b'r' | b'b' | b'c' if !(at > 0 && is_word(bytes[at - 1])) => match raw_string(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            b'\'' => match char_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        let ends_as_string = bytes[at..end].ends_with(b"\"") || bytes[at..end].ends_with(b"#");
        if bytes[at] != b'/' && ends_as_string {
            strings.push(at..end);
        }
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole characters are blanked, or left alone, so the bytes are still UTF-8.
    (String::from_utf8(code).unwrap_or_default(), strings)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    let length = bytes[from..].iter().position(|byte| *byte == b'\n');
    length.map_or(bytes.len(), |length| from + length)
}

fn block_end(bytes: &[u8], from: usize) -> usize {
    let mut depth = 0usize;
    let mut at = from;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// After the quote that ends a string whose contents begin at `from`.
fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a literal that begins with a prefix (`r`, `b`, `c` or two of them), if there is one at `at`.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let letters = bytes[at..]
        .iter()
        .take(2)
        .take_while(|byte| b"rbc".contains(byte))
        .count();
    let raw = bytes[at..at + letters].contains(&b'r');
    let after = at + letters;
    let hashes = bytes[after..].iter().take_while(|byte| **byte == b'#').count();
    match bytes.get(after + hashes) {
        Some(b'"') if raw => {
            let mut end = vec![b'"'];
            end.extend(std::iter::repeat_n(b'#', hashes));
            let contents = after + hashes + 1;
            let length = bytes[contents..]
                .windows(end.len())
                .position(|window| window == end);
            Some(length.map_or(bytes.len(), |length| contents + length + end.len()))
        }
        Some(b'"') if hashes == 0 => Some(string_end(bytes, after + 1)),
        Some(b'\'') if hashes == 0 && !raw => char_end(bytes, after),
        _ => None,
    }
}

/// After the quote that ends a character literal at `at`; `None` if it is a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at + 1)? {
        b'\\' => {
            let length = bytes[at + 3..].iter().take(12).position(|byte| *byte == b'\'')?;
            Some(at + 3 + length + 1)
        }
        first => {
            let width = match first {
                0..=0x7f => 1,
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            (bytes.get(at + 1 + width) == Some(&b'\'')).then_some(at + width + 2)
        }
    }
}

/// Words and punctuation of a `use` declaration, with offsets.
fn tokens(body: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    let mut word_ends = usize::MAX;
    for (at, c) in body.char_indices() {
        if c.is_alphanumeric() || c == '_' || c == '#' {
            match tokens.last_mut() {
                Some((_, word)) if word_ends == at => word.push(c),
                _ => tokens.push((at, c.into())),
            }
            word_ends = at + c.len_utf8();
        } else if !c.is_whitespace() {
            tokens.push((at, c.into()));
        }
    }
    tokens
}

/// A `use` tree being taken apart.
struct Tree {
    tokens: Vec<(usize, String)>,
    at: usize,
    next: usize,
}

impl Tree {
    /// Adds the paths of one tree, up to a comma or the end of its group.
    fn expand(&mut self, prefix: &str, paths: &mut Vec<(usize, String)>) {
        let mut path = prefix.to_owned();
        let mut start = None;
        while let Some((at, token)) = self.tokens.get(self.next).cloned() {
            match token.as_str() {
                "," | "}" => break,
                ":" => {}
                "as" => self.next += 1,
                "{" => {
                    self.next += 1;
                    self.group(&path, paths);
                    return;
                }
                word => {
                    start.get_or_insert(self.at + at);
                    if !path.is_empty() {
                        path.push_str("::");
                    }
                    path.push_str(word);
                }
            }
            self.next += 1;
        }
        if let Some(start) = start {
            let path = path.strip_suffix("::self").unwrap_or(&path);
            paths.push((start, path.into()));
        }
    }

    fn group(&mut self, prefix: &str, paths: &mut Vec<(usize, String)>) {
        while let Some((_, token)) = self.tokens.get(self.next) {
            match token.as_str() {
                "}" => {
                    self.next += 1;
                    return;
                }
                "," => self.next += 1,
                _ => self.expand(prefix, paths),
            }
        }
    }
}

#[cfg(test)]
mod tests;
