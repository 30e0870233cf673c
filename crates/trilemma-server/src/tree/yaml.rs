//! YAML in and out.

use super::file::{FILE_BYTES_MAX, Fault};
use super::{DEPTH_MAX, Tree, TreeError};

pub(super) fn parse(text: &str) -> Result<Tree, Fault> {
    // The file's size bounds honest documents; what aliases may multiply stays at the crate's defaults.
    let size = FILE_BYTES_MAX as usize;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: size,
            max_nodes: size,
            max_total_scalar_bytes: size,
            max_depth: DEPTH_MAX + 1,
            max_documents: 1,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let location = error.location();
        Fault {
            line: location.as_ref().map_or(0, |location| location.line() as usize),
            column: location.as_ref().map_or(0, |location| location.column() as usize),
            what: error.without_snippet().to_string(),
        }
    })
}

pub(super) fn emit(tree: &Tree) -> Result<String, TreeError> {
    serde_saphyr::to_string(tree).map_err(|error| TreeError::Value {
        path: "the root".into(),
        what: error.to_string(),
    })
}
