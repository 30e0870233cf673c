//! Trees as entries and back: how a path becomes a key. See the table in [`crate::tree`].

use std::collections::BTreeMap;

use super::scalar::{decode, encode};
use super::{DEPTH_MAX, Tree, TreeError};

/// Longest array. The bound keeps a stored index from naming an absurd length.
const ARRAY_LENGTH_MAX: usize = 1_000_000;
/// The segment of the root itself.
const ROOT: &str = "~4";

/// Where in a keyspace a tree lives: before every key of it, with a `/` unless empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// From the operator's text; a slash at the end makes no difference. Any text is good for finding what is stored below
    /// it, by whomever.
    pub(crate) fn new(text: &str) -> Self {
        let text = text.trim_end_matches('/');
        Self(if text.is_empty() {
            String::new()
        } else {
            format!("{text}/")
        })
    }

    /// The same for what is to be stored: only segments that an export of the whole keyspace can read back, so none is empty.
    pub(crate) fn for_load(text: &str) -> Result<Self, TreeError> {
        let prefix = Self::new(text);
        let mut segments = prefix.0.split_terminator('/');
        let bad = segments.find(|segment| Segment::decode(segment).is_none());
        let what = match bad {
            None => return Ok(prefix),
            Some("") if text.starts_with('/') => format!(
                "begins with a slash; keys are paths without one here, so give --prefix {}",
                text.trim_matches('/')
            ),
            Some("") => "has an empty name between two slashes".into(),
            Some(segment) => format!(
                "\"{segment}\" is no name; within names \"~\" is written ~0, and a \"#\" at the beginning ~2"
            ),
        };
        Err(TreeError::Value {
            path: format!("--prefix {text}"),
            what,
        })
    }

    /// What every key of the tree begins with.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A step on a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    /// A member of a map.
    Name(String),
    /// An element of an array.
    Index(usize),
}

impl Segment {
    pub(super) fn encode(&self) -> String {
        match self {
            Segment::Index(index) => {
                let digits = index.to_string();
                format!("#{}{digits}", "_".repeat(digits.len() - 1))
            }
            Segment::Name(name) if name.is_empty() => "~3".into(),
            Segment::Name(name) => {
                let escaped = name.replace('~', "~0").replace('/', "~1");
                match escaped.strip_prefix('#') {
                    Some(rest) => format!("~2{rest}"),
                    None => escaped,
                }
            }
        }
    }

    /// `None` unless `text` is what [`Segment::encode`] makes.
    pub(super) fn decode(text: &str) -> Option<Self> {
        let segment = if let Some(index) = text.strip_prefix('#') {
            Segment::Index(index.trim_start_matches('_').parse().ok()?)
        } else if text == "~3" {
            Segment::Name(String::new())
        } else {
            let (start, rest) = match text.strip_prefix("~2") {
                Some(rest) => ("#", rest),
                None => ("", text),
            };
            Segment::Name(format!("{start}{}", rest.replace("~1", "/").replace("~0", "~")))
        };
        (segment.encode() == text).then_some(segment)
    }
}

/// The entries that hold `tree`: key to text. Keys are distinct and non-empty.
pub(crate) fn entries(tree: &Tree, prefix: &Prefix) -> Result<BTreeMap<String, String>, TreeError> {
    let mut entries = BTreeMap::new();
    if tree.is_leaf() {
        entries.insert(format!("{}{ROOT}", prefix.as_str()), encode(tree));
    } else {
        let mut path = prefix.as_str().to_owned();
        collect(tree, &mut path, 0, &mut entries)?;
    }
    Ok(entries)
}

fn collect(
    tree: &Tree,
    path: &mut String,
    depth: usize,
    entries: &mut BTreeMap<String, String>,
) -> Result<(), TreeError> {
    let mut child = |segment: Segment, tree: &Tree, path: &mut String| -> Result<(), TreeError> {
        let length = path.len();
        path.push_str(&segment.encode());
        if tree.is_leaf() {
            entries.insert(path.clone(), encode(tree));
        } else if depth + 1 >= DEPTH_MAX {
            return Err(TreeError::Value {
                path: path.clone(),
                what: format!("maps and arrays are nested deeper than {DEPTH_MAX}; flatten the file"),
            });
        } else {
            path.push('/');
            collect(tree, path, depth + 1, entries)?;
        }
        path.truncate(length);
        Ok(())
    };
    match tree {
        Tree::Map(members) => members
            .iter()
            .try_for_each(|(name, member)| child(Segment::Name(name.clone()), member, path)),
        Tree::Array(elements) if elements.len() > ARRAY_LENGTH_MAX => Err(TreeError::Value {
            path: path.clone(),
            what: format!(
                "an array of {} elements; the limit is {ARRAY_LENGTH_MAX}",
                elements.len()
            ),
        }),
        Tree::Array(elements) => elements
            .iter()
            .enumerate()
            .try_for_each(|(index, element)| child(Segment::Index(index), element, path)),
        _ => Ok(()),
    }
}

/// A tree being put together from its entries.
enum Node {
    Leaf(Tree),
    Inner(BTreeMap<Segment, Node>),
}

/// The tree that the entries under `prefix` hold; `None` if there are none.
pub(crate) fn tree_of<'a>(
    entries: impl IntoIterator<Item = (&'a str, &'a str)>,
    prefix: &Prefix,
) -> Result<Option<Tree>, TreeError> {
    let mut root = None;
    let mut single = None;
    for (key, text) in entries {
        let stored = |what: String| TreeError::Stored {
            key: key.into(),
            what,
        };
        let Some(path) = key.strip_prefix(prefix.as_str()) else {
            continue;
        };
        if path == ROOT {
            single = Some((key, decode(text)));
            continue;
        }
        // A whole document that is one value, loaded below a longer prefix.
        let path = path
            .strip_suffix(ROOT)
            .and_then(|path| path.strip_suffix('/'))
            .unwrap_or(path);
        let segments = path.split('/').map(|segment| {
            Segment::decode(segment).ok_or_else(|| {
                stored(format!(
                    "the segment \"{segment}\" was not made by load; store such keys elsewhere, or export with a --prefix that leaves them out"
                ))
            })
        });
        let segments = segments.collect::<Result<Vec<_>, _>>()?;
        if segments.len() > DEPTH_MAX {
            return Err(stored(format!("nested deeper than {DEPTH_MAX}")));
        }
        let inner = root.get_or_insert_with(BTreeMap::new);
        insert(inner, &segments, decode(text)).map_err(stored)?;
    }
    match (root, single) {
        (None, None) => Ok(None),
        (None, Some((_, tree))) => Ok(Some(tree)),
        (Some(_), Some((key, _))) => Err(TreeError::Stored {
            key: key.into(),
            what: "stands for the whole tree, yet other keys exist beside it; one tree cannot hold both, so take a longer prefix".into(),
        }),
        (Some(root), None) => finish(root, &mut prefix.as_str().to_owned()).map(Some),
    }
}

fn insert(inner: &mut BTreeMap<Segment, Node>, segments: &[Segment], leaf: Tree) -> Result<(), String> {
    const BOTH: &str =
        "is a value and also has keys below it; one tree cannot hold both, so take a longer prefix";
    let (first, rest) = segments.split_first().expect("split never gives an empty list");
    if rest.is_empty() {
        return match inner.insert(first.clone(), Node::Leaf(leaf)) {
            None => Ok(()),
            Some(_) => Err(BOTH.into()),
        };
    }
    match inner
        .entry(first.clone())
        .or_insert_with(|| Node::Inner(BTreeMap::new()))
    {
        Node::Inner(inner) => insert(inner, rest, leaf),
        Node::Leaf(_) => Err(format!("the path to it, at \"{}\", {BOTH}", first.encode())),
    }
}

fn finish(inner: BTreeMap<Segment, Node>, path: &mut String) -> Result<Tree, TreeError> {
    let mut members = BTreeMap::new();
    let mut elements = Vec::new();
    for (segment, node) in inner {
        let length = path.len();
        path.push_str(&segment.encode());
        let tree = match node {
            Node::Leaf(leaf) => leaf,
            Node::Inner(inner) => {
                path.push('/');
                finish(inner, path)?
            }
        };
        let stored = |what: String| TreeError::Stored {
            key: path.clone(),
            what,
        };
        match segment {
            // Names sort before indexes, so a mixture shows at the first index.
            Segment::Index(_) if !members.is_empty() => {
                return Err(stored(
                    "is an element beside members of a map; one tree cannot hold both, so take a longer prefix".into(),
                ));
            }
            Segment::Index(index) if index != elements.len() => {
                return Err(stored(format!(
                    "element {} before it is missing; put it, or load the array again",
                    elements.len()
                )));
            }
            Segment::Index(_) => elements.push(tree),
            Segment::Name(name) => {
                members.insert(name, tree);
            }
        }
        path.truncate(length);
    }
    Ok(if elements.is_empty() {
        Tree::Map(members)
    } else {
        Tree::Array(elements)
    })
}
