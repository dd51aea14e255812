//! Tables inside a document that people write: what stands between `<!-- sweep:NAME -->` and `<!-- /sweep:NAME -->` is
//! the sweep's, the rest is theirs.
//!
//! Invariants: nothing outside of the markers changes, and the markers stay; a document with a marker that nothing
//! closes, or that no table belongs to, is refused as a whole.

use thiserror::Error;

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MarkerError {
    /// It opens and does not close.
    #[error("`<!-- sweep:{0} -->` is not followed by `<!-- /sweep:{0} -->`")]
    NotClosed(String),
    /// There is no such table.
    #[error("there is no table `{0}`: the sweep has {1}")]
    Unknown(String, String),
    /// There is nothing to write.
    #[error("it has no `<!-- sweep:NAME -->`")]
    None,
}

const OPENING: &str = "<!-- sweep:";
const CLOSING: &str = "<!-- /sweep:";
const END: &str = " -->";

/// `document` with each marked part replaced by the table of its name.
pub fn rewrite(document: &str, tables: &[(&str, String)]) -> Result<String, MarkerError> {
    let (mut text, mut rest) = (String::new(), document);
    while let Some((before, behind)) = rest.split_once(OPENING) {
        let not_closed = |name: &str| MarkerError::NotClosed(name.lines().next().unwrap_or("").to_owned());
        let (name, behind) = behind.split_once(END).ok_or_else(|| not_closed(behind))?;
        let closing = format!("{CLOSING}{name}{END}");
        let (old, behind) = behind.split_once(&closing).ok_or_else(|| not_closed(name))?;
        if old.contains(OPENING) {
            return Err(not_closed(name));
        }
        let table = tables.iter().find(|(table, _)| *table == name).ok_or_else(|| {
            let names: Vec<&str> = tables.iter().map(|(table, _)| *table).collect();
            MarkerError::Unknown(name.to_owned(), names.join(", "))
        })?;
        text += &format!("{before}{OPENING}{name}{END}\n{}\n{closing}", table.1.trim_end());
        rest = behind;
    }
    if text.is_empty() { Err(MarkerError::None) } else { Ok(text + rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> [(&'static str, String); 2] {
        [("one", "| 1 |\n".to_owned()), ("two", "| 2 |".to_owned())]
    }

    /// The promise: only what is between the markers changes, and rewriting again changes nothing.
    #[test]
    fn only_what_is_marked_changes() {
        let document =
            "# A\n<!-- sweep:two -->\nold\n<!-- /sweep:two -->\ntext\n\n<!-- sweep:one --><!-- /sweep:one -->\nend";
        let expected = "# A\n<!-- sweep:two -->\n| 2 |\n<!-- /sweep:two -->\ntext\n\n<!-- sweep:one -->\n| 1 |\n\
                        <!-- /sweep:one -->\nend";
        assert_eq!(rewrite(document, &tables()).as_deref(), Ok(expected));
        assert_eq!(rewrite(expected, &tables()).as_deref(), Ok(expected));
    }

    /// The promise: a document that is not as it should be is refused, and says which marker is wrong.
    #[test]
    fn wrong_markers_are_refused() {
        let refused = |document: &str| rewrite(document, &tables());
        assert_eq!(refused("nothing"), Err(MarkerError::None));
        assert_eq!(refused("<!-- sweep:one -->\n"), Err(MarkerError::NotClosed("one".to_owned())));
        assert_eq!(refused("<!-- sweep:one\n"), Err(MarkerError::NotClosed("one".to_owned())));
        let nested = "<!-- sweep:one -->\n<!-- sweep:two -->\n<!-- /sweep:two -->\n<!-- /sweep:one -->";
        assert_eq!(refused(nested), Err(MarkerError::NotClosed("one".to_owned())));
        let unknown = refused("<!-- sweep:three --><!-- /sweep:three -->");
        assert_eq!(unknown, Err(MarkerError::Unknown("three".to_owned(), "one, two".to_owned())));
    }
}
