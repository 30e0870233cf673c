//! Sizes per package: a sign of where a file or a function has grown too large to be read. Reports, never fails.

use super::File;
use crate::source::{Source, closing};
use crate::workspace::Package;

/// Longest function that fits a screen, in lines.
const FUNCTION_LINES_AIM: usize = 70;

#[derive(Default)]
struct Sizes {
    functions: Vec<usize>,
    longest: (usize, String),
    largest: (usize, String),
    lines: usize,
    doc_lines: usize,
    asserts: usize,
}

/// The table, one row per package, test code left out.
pub(super) fn report(packages: &[Package], files: &[File]) -> String {
    let mut table = format!(
        "{:20} {:>6} {:>5} {:>4} {:>4} {:>5} {:>6} {:>9}  {}\n",
        "package", "lines", "fns", "p50", "p90", ">70", "doc %", "asserts‰", "largest file, longest function"
    );
    for package in packages {
        let own = files
            .iter()
            .filter(|file| package.holds(&file.name) && !file.is_test());
        let sizes = measure(own);
        table.push_str(&row(&package.name, sizes));
    }
    table.push_str(
        "\nAims: p90 ≤ 30, under 1 % of functions over 70 lines, files ≤ 600 lines, 10–20 % documentation,\n\
         ≥ 200 asserts per 1000 functions in protocol crates. Test code is not counted.",
    );
    table
}

fn measure<'a>(files: impl Iterator<Item = &'a File>) -> Sizes {
    let mut sizes = Sizes::default();
    for file in files {
        let counted = |at: usize| !file.source.in_inline_tests(at);
        let lines = file.source.text.lines().filter(|line| !line.trim().is_empty());
        let all = file.source.text.lines().count();
        sizes.largest = std::cmp::max(sizes.largest, (all, file.name.clone()));
        for line in lines {
            let line = line.trim_start();
            sizes.lines += 1;
            sizes.doc_lines += usize::from(line.starts_with("///") || line.starts_with("//!"));
        }
        for (at, name, length) in functions(&file.source) {
            if counted(at) {
                sizes.functions.push(length);
                let longest = (
                    length,
                    format!("{name} ({}:{})", file.name, file.source.line_of(at)),
                );
                sizes.longest = std::cmp::max(std::mem::take(&mut sizes.longest), longest);
            }
        }
        for name in [
            "assert!",
            "assert_eq!",
            "assert_ne!",
            "debug_assert!",
            "debug_assert_eq!",
            "debug_assert_ne!",
        ] {
            sizes.asserts += file.source.find_word(name).filter(|at| counted(*at)).count();
        }
    }
    sizes.functions.sort_unstable();
    sizes
}

fn row(name: &str, sizes: Sizes) -> String {
    let count = sizes.functions.len();
    let quantile = |part: usize| {
        let last = count.saturating_sub(1);
        sizes.functions.get(last * part / 100).copied().unwrap_or(0)
    };
    let long = sizes
        .functions
        .iter()
        .filter(|length| **length > FUNCTION_LINES_AIM)
        .count();
    format!(
        "{:20} {:>6} {:>5} {:>4} {:>4} {:>5} {:>6} {:>9}  {} {}, {} {}\n",
        name,
        sizes.lines,
        count,
        quantile(50),
        quantile(90),
        long,
        100 * sizes.doc_lines / sizes.lines.max(1),
        1000 * sizes.asserts / count.max(1),
        sizes.largest.0,
        sizes.largest.1,
        sizes.longest.0,
        sizes.longest.1,
    )
}

/// The functions with a body: where they begin, their name, and their length in lines.
pub(super) fn functions(source: &Source) -> Vec<(usize, String, usize)> {
    let mut functions = Vec::new();
    for at in source.find_word("fn") {
        let rest = &source.code[at + 2..];
        let name: String = rest
            .trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        // A function pointer type has no name, a declaration in a trait no body.
        let Some(end) = rest.find(['{', ';']) else {
            continue;
        };
        let body = body(&source.code, at + 2 + end);
        if let (false, Some(close)) = (name.is_empty(), body) {
            let length = source.line_of(close) - source.line_of(at) + 1;
            functions.push((at, name, length));
        }
    }
    functions
}

/// The end of the body if `at` opens one. A `;` inside an array type does not end a declaration.
fn body(code: &str, at: usize) -> Option<usize> {
    if code[at..].starts_with('{') {
        return closing(code, at);
    }
    let line_goes_on = code[at..].find(']').zip(code[at..].find('{'));
    let (bracket, open) = line_goes_on?;
    let between = &code[at + 1..at + bracket];
    let is_length = !between.contains('\n') && bracket < open && !code[at + bracket..at + open].contains(';');
    is_length.then(|| closing(code, at + open)).flatten()
}
