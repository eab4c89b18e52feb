//! Which tables are meant: `database.table` globs, `!` before those to leave out.

use globset::{GlobBuilder, GlobMatcher};
use weir_model::TableId;

/// Databases of the server itself; no pattern reaches them.
const SYSTEM_DATABASES: [&str; 5] = ["mysql", "information_schema", "performance_schema", "sys", "ndbinfo"];

/// Whether `database` belongs to the server itself.
pub fn is_system_database(database: &str) -> bool {
    SYSTEM_DATABASES.iter().any(|name| name.eq_ignore_ascii_case(database))
}

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table pattern `{pattern}`: {why}")]
pub struct PatternError {
    pub pattern: String,
    pub why: String,
}

/// A set of patterns: a table is meant if one includes it and none excludes it, in whatever order they stand.
#[derive(Debug, Clone)]
pub struct TablePatterns {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    texts: Vec<String>,
}

#[derive(Debug, Clone)]
struct Pattern {
    database: GlobMatcher,
    table: GlobMatcher,
}

impl TablePatterns {
    pub fn new(patterns: &[String]) -> Result<Self, PatternError> {
        let mut result = Self { include: Vec::new(), exclude: Vec::new(), texts: patterns.to_vec() };
        for text in patterns {
            match text.strip_prefix('!') {
                Some(rest) => result.exclude.push(Pattern::parse(text, rest)?),
                None => result.include.push(Pattern::parse(text, text)?),
            }
        }
        if result.include.is_empty() {
            let why = "no pattern includes a table; write database.table, such as shop.*";
            return Err(PatternError { pattern: patterns.join(", "), why: why.into() });
        }
        Ok(result)
    }

    pub fn matches(&self, table: &TableId) -> bool {
        !is_system_database(&table.database)
            && self.include.iter().any(|p| p.matches(table))
            && !self.exclude.iter().any(|p| p.matches(table))
    }

    /// The including patterns that match none of `tables`, for a warning.
    pub fn unmatched<'a>(&'a self, tables: &[TableId]) -> Vec<&'a str> {
        let texts = self.texts.iter().filter(|t| !t.starts_with('!'));
        texts
            .zip(&self.include)
            .filter(|(_, p)| !tables.iter().any(|t| p.matches(t)))
            .map(|(t, _)| t.as_str())
            .collect()
    }
}

impl Pattern {
    fn parse(whole: &str, text: &str) -> Result<Self, PatternError> {
        let error = |why: String| PatternError { pattern: whole.into(), why };
        let (database, table) = text
            .split_once('.')
            .filter(|(database, table)| !database.is_empty() && !table.is_empty())
            .ok_or_else(|| error("expected database.table, such as shop.*".into()))?;
        let glob = |part: &str| {
            let glob = GlobBuilder::new(part).literal_separator(false).backslash_escape(true).build();
            glob.map(|g| g.compile_matcher()).map_err(|e| error(e.kind().to_string()))
        };
        Ok(Self { database: glob(database)?, table: glob(table)? })
    }

    fn matches(&self, table: &TableId) -> bool {
        self.database.is_match(&*table.database) && self.table.is_match(&*table.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> TablePatterns {
        TablePatterns::new(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_table_is_meant_when_included_and_not_excluded() {
        let patterns = patterns(&["!shop.tmp_*", "shop.*", "crm.user?"]);
        for (name, meant) in [
            (("shop", "orders"), true),
            (("shop", "tmp_x"), false),
            (("crm", "users"), true),
            (("crm", "user"), false),
            (("shopping", "orders"), false),
            (("shop", "a.b"), true),
            (("shop", "a/b"), true),
        ] {
            assert_eq!(patterns.matches(&TableId::new(name.0, name.1)), meant, "{name:?}");
        }
    }

    #[test]
    fn system_databases_never_match() {
        let patterns = patterns(&["*.*"]);
        assert!(!patterns.matches(&TableId::new("mysql", "user")));
        assert!(!patterns.matches(&TableId::new("sys", "version")));
        assert!(patterns.matches(&TableId::new("mysql2", "user")));
    }

    #[test]
    fn patterns_that_cannot_mean_a_table_are_refused() {
        for bad in [&["shop"][..], &["!shop.*"], &[], &["shop."], &["shop.[a"]] {
            let texts: Vec<String> = bad.iter().map(|t| (*t).to_owned()).collect();
            assert!(TablePatterns::new(&texts).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_without_a_table_is_reported() {
        let patterns = patterns(&["shop.*", "crm.*", "!shop.a"]);
        assert_eq!(patterns.unmatched(&[TableId::new("shop", "b")]), ["crm.*"]);
    }
}
