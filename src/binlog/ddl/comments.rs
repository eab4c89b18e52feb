//! Comments that MariaDB carries out, spelled as MySQL would carry them out, so that one reader serves both.
//!
//! MariaDB documentation, "Comment Syntax": `/*M! … */` is carried out by MariaDB alone, a version in it or in `/*! … */` is the
//! least that carries it out, and versions from 50700 to 99999 are MySQL's, which MariaDB passes over.

use std::borrow::Cow;

/// Versions that are of MySQL alone.
const OF_MYSQL: std::ops::RangeInclusive<u64> = 50_700..=99_999;

/// `sql`, which MariaDB has carried out, such that MySQL's rules for comments make the same of it.
pub fn comments_of_mariadb(sql: &str) -> Cow<'_, str> {
    if !sql.contains("/*!") && !sql.contains("/*M!") {
        return Cow::Borrowed(sql);
    }
    let mut told = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find("/*") {
        told.push_str(&rest[..at]);
        rest = &rest[at + "/*".len()..];
        let Some(inner) = rest.strip_prefix("M!").or_else(|| rest.strip_prefix('!')) else {
            told.push_str("/*");
            continue;
        };
        let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
        let is_of_mysql = inner[..digits].parse().is_ok_and(|version| OF_MYSQL.contains(&version));
        // A blank, lest what follows be taken for more of the mark.
        told.push_str(if is_of_mysql { "/* " } else { "/*! " });
        rest = &inner[digits..];
    }
    told.push_str(rest);
    Cow::Owned(told)
}

#[cfg(test)]
mod tests {
    use super::super::tests::alter_of;
    use super::*;

    #[test]
    fn what_mariadb_carries_out_is_seen_and_what_it_passes_over_is_not() {
        for (sql, adds_default, drops) in [
            ("ALTER TABLE t ADD a INT /*M! , ADD c INT NOT NULL DEFAULT 7 */", true, false),
            ("ALTER TABLE t ADD a INT /*M!100100 , ADD c INT NOT NULL DEFAULT 7 */", true, false),
            ("ALTER TABLE t ADD a INT /*!100100 , ADD c INT NOT NULL DEFAULT 7 */", true, false),
            ("ALTER TABLE t ADD a INT /*!50100 , ADD c INT NOT NULL DEFAULT 7 */", true, false),
            ("ALTER TABLE t ADD a INT /*!80000 , DROP COLUMN b */", false, false),
            ("ALTER TABLE t ADD a INT /*! , DROP COLUMN b */ /* , DROP COLUMN c */", false, true),
        ] {
            let alter = alter_of(&comments_of_mariadb(sql));
            assert_eq!((alter.adds_default, !alter.drops_columns.is_empty()), (adds_default, drops), "{sql}");
        }
        assert_eq!(comments_of_mariadb("ALTER TABLE t /* ! */ ADD a INT"), "ALTER TABLE t /* ! */ ADD a INT");
    }
}
