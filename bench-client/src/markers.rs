//! Tables inside a document that people write: what stands between `<!-- NAME -->` and `<!-- /NAME -->` is a program's,
//! the rest is theirs.
//!
//! The names of one program begin alike (`sweep:`), so that it finds its own.
//!
//! Invariants: nothing outside of the markers changes, and the markers stay; what has no new table keeps its old one; a
//! document with a marker that nothing closes, or that no table belongs to, is refused as a whole.
#![forbid(unsafe_code)]

use thiserror::Error;

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MarkerError {
    /// It opens and does not close.
    #[error("`<!-- {0} -->` is not followed by `<!-- /{0} -->`")]
    NotClosed(String),
    /// There is no such table.
    #[error("there is no table `{0}`: there are {1}")]
    Unknown(String, String),
    /// There is nothing to write.
    #[error("it has no `<!-- {0} -->`")]
    None(String),
}

const END: &str = " -->";

/// `document` with `table` between the marks of `name`.
pub fn write(document: &str, name: &str, table: &str) -> Result<String, MarkerError> {
    let is_there = document.contains(&format!("<!-- {name}{END}"));
    if !is_there {
        return Err(MarkerError::None(name.to_owned()));
    }
    rewrite(document, name, |found| Ok((found == name).then_some(table)))
}

/// `document` with the tables of all names that begin with `group`, as far as there are new ones: each of `tables` has its
/// name, and `None` where the old one stays.
pub fn write_group(document: &str, group: &str, tables: &[(&str, Option<String>)]) -> Result<String, MarkerError> {
    if !document.contains(&format!("<!-- {group}")) {
        return Err(MarkerError::None(format!("{group}NAME")));
    }
    rewrite(document, group, |found| {
        let name = found.strip_prefix(group).unwrap_or(found);
        let table = tables.iter().find(|(table, _)| *table == name).map(|(_, table)| table.as_deref());
        table.ok_or_else(|| {
            let names: Vec<&str> = tables.iter().map(|(table, _)| *table).collect();
            MarkerError::Unknown(name.to_owned(), names.join(", "))
        })
    })
}

/// Asks `table` for what belongs between the marks of each name that begins with `group`.
fn rewrite<'a>(
    document: &str,
    group: &str,
    table: impl Fn(&str) -> Result<Option<&'a str>, MarkerError>,
) -> Result<String, MarkerError> {
    let opening = format!("<!-- {group}");
    let (mut text, mut rest) = (String::new(), document);
    while let Some((before, behind)) = rest.split_once(&opening) {
        let not_closed = |name: &str| MarkerError::NotClosed(format!("{group}{}", name.lines().next().unwrap_or("")));
        let (name, behind) = behind.split_once(END).ok_or_else(|| not_closed(behind))?;
        let closing = format!("<!-- /{group}{name}{END}");
        let (old, behind) = behind.split_once(&closing).ok_or_else(|| not_closed(name))?;
        if old.contains(&opening) {
            return Err(not_closed(name));
        }
        let new = table(&format!("{group}{name}"))?.map(|table| format!("\n{}\n", table.trim_end()));
        text += &format!("{before}{opening}{name}{END}{}{closing}", new.as_deref().unwrap_or(old));
        rest = behind;
    }
    Ok(text + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> [(&'static str, Option<String>); 3] {
        [("one", Some("| 1 |\n".to_owned())), ("two", Some("| 2 |".to_owned())), ("unmeasured", None)]
    }

    /// The promise: only what is between the markers changes, and rewriting again changes nothing.
    #[test]
    fn only_what_is_marked_changes() {
        let document =
            "# A\n<!-- sweep:two -->\nold\n<!-- /sweep:two -->\ntext\n\n<!-- sweep:one --><!-- /sweep:one -->\nend";
        let expected = "# A\n<!-- sweep:two -->\n| 2 |\n<!-- /sweep:two -->\ntext\n\n<!-- sweep:one -->\n| 1 |\n\
                        <!-- /sweep:one -->\nend";
        assert_eq!(write_group(document, "sweep:", &tables()).as_deref(), Ok(expected));
        assert_eq!(write_group(expected, "sweep:", &tables()).as_deref(), Ok(expected));
    }

    /// The promise: a table that was not measured again stays as it was.
    #[test]
    fn what_is_not_measured_stays() {
        let document = "<!-- sweep:unmeasured -->\n| of yesterday |\n<!-- /sweep:unmeasured -->\n";
        assert_eq!(write_group(document, "sweep:", &tables()).as_deref(), Ok(document));
    }

    /// The promise: one name is written and no other, also where another begins like it.
    #[test]
    fn one_name_is_written() {
        let document = "<!-- bench -->\nold\n<!-- /bench -->\n<!-- bench:sizes -->\nold\n<!-- /bench:sizes -->\n";
        let expected = "<!-- bench -->\n| 1 |\n<!-- /bench -->\n<!-- bench:sizes -->\nold\n<!-- /bench:sizes -->\n";
        assert_eq!(write(document, "bench", "| 1 |\n\n").as_deref(), Ok(expected));
        assert_eq!(write(document, "bench:", "| 1 |"), Err(MarkerError::None("bench:".to_owned())));
        assert_eq!(write("<!-- a -->\n", "a", "| 1 |"), Err(MarkerError::NotClosed("a".to_owned())));
    }

    /// The promise: a document that is not as it should be is refused, and says which marker is wrong.
    #[test]
    fn wrong_markers_are_refused() {
        let refused = |document: &str| write_group(document, "sweep:", &tables());
        assert_eq!(refused("nothing"), Err(MarkerError::None("sweep:NAME".to_owned())));
        assert_eq!(refused("<!-- sweep:one -->\n"), Err(MarkerError::NotClosed("sweep:one".to_owned())));
        assert_eq!(refused("<!-- sweep:one\n"), Err(MarkerError::NotClosed("sweep:one".to_owned())));
        let nested = "<!-- sweep:one -->\n<!-- sweep:two -->\n<!-- /sweep:two -->\n<!-- /sweep:one -->";
        assert_eq!(refused(nested), Err(MarkerError::NotClosed("sweep:one".to_owned())));
        let unknown = refused("<!-- sweep:three --><!-- /sweep:three -->");
        let names = "one, two, unmeasured".to_owned();
        assert_eq!(unknown, Err(MarkerError::Unknown("three".to_owned(), names)));
    }
}
