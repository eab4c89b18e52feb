//! MySQL's spelling of a column's type (`COLUMN_TYPE` in information_schema) read into a [`ColumnType`].

use weir_model::ColumnType;

/// A type that has no place in a lake table, as the server spells it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the type `{0}` is not supported")]
pub struct UnsupportedType(pub String);

/// Reads a type such as `int unsigned`, `decimal(10,2)` or `enum('a','b''c')`.
///
/// `charset` is the column's character set, if it has one; text in the character set `binary` is [`ColumnType::Binary`].
pub fn parse_column_type(column_type: &str, charset: Option<&str>) -> Result<ColumnType, UnsupportedType> {
    let unsupported = || UnsupportedType(column_type.into());
    // MariaDB's attribute, in a comment of its own; values lie in the binlog as they are stored.
    if column_type.contains("*M!") && column_type.contains(" COMPRESSED") {
        return Err(unsupported());
    }
    let spelled = Spelled::read(column_type).ok_or_else(unsupported)?;
    let text =
        if charset.is_some_and(|c| c.eq_ignore_ascii_case("binary")) { ColumnType::Binary } else { ColumnType::Text };
    let fsp = || spelled.number(0).unwrap_or(0);
    Ok(match spelled.base.as_str() {
        "tinyint" | "bool" | "boolean" => spelled.integer(ColumnType::Int8, ColumnType::UInt8),
        "smallint" => spelled.integer(ColumnType::Int16, ColumnType::UInt16),
        "mediumint" => spelled.integer(ColumnType::Int24, ColumnType::UInt24),
        "int" | "integer" => spelled.integer(ColumnType::Int32, ColumnType::UInt32),
        "bigint" => spelled.integer(ColumnType::Int64, ColumnType::UInt64),
        "bit" => match spelled.number(0).unwrap_or(1) {
            1 => ColumnType::Boolean,
            bits @ 2..=64 => ColumnType::Bits(bits),
            _ => return Err(unsupported()),
        },
        "decimal" | "numeric" | "dec" | "fixed" => {
            ColumnType::Decimal { precision: spelled.number(0).unwrap_or(10), scale: spelled.number(1).unwrap_or(0) }
        }
        "float" => ColumnType::Float,
        "double" | "real" => ColumnType::Double,
        "date" => ColumnType::Date,
        "datetime" => ColumnType::DateTime { fsp: fsp() },
        "timestamp" => ColumnType::Timestamp { fsp: fsp() },
        "time" => ColumnType::Time { fsp: fsp() },
        "year" => ColumnType::Year,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => text,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => ColumnType::Binary,
        "enum" => ColumnType::Enum(spelled.arguments),
        "set" => ColumnType::Set(spelled.arguments),
        "json" => ColumnType::Json,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geomcollection" | "geometrycollection" => ColumnType::Geometry,
        "vector" => ColumnType::Vector,
        _ => return Err(unsupported()),
    })
}

/// `base(arguments) attributes`.
struct Spelled {
    base: String,
    /// Quoted ones without their quotes.
    arguments: Vec<String>,
    unsigned: bool,
}

impl Spelled {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let base_end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (base, rest) = text.split_at(base_end);
        let (arguments, attributes) = match rest.strip_prefix('(') {
            Some(inside) => read_arguments(inside)?,
            None => (Vec::new(), rest),
        };
        let unsigned = attributes.split_ascii_whitespace().any(|a| {
            // ZEROFILL implies UNSIGNED even where the server does not spell it.
            a.eq_ignore_ascii_case("unsigned") || a.eq_ignore_ascii_case("zerofill")
        });
        Some(Self { base: base.to_ascii_lowercase(), arguments, unsigned })
    }

    fn number(&self, index: usize) -> Option<u8> {
        self.arguments.get(index)?.trim().parse().ok()
    }

    fn integer(&self, signed: ColumnType, unsigned: ColumnType) -> ColumnType {
        if self.unsigned { unsigned } else { signed }
    }
}

/// The comma-separated arguments up to the closing parenthesis, and what follows it. Inside quotes the server doubles a
/// quote, and writes backslash, NUL, line feed and carriage return as escapes, whatever the sql_mode.
fn read_arguments(text: &str) -> Option<(Vec<String>, &str)> {
    let mut arguments = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let argument = arguments.last_mut()?;
        match c {
            '\'' if quoted && chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                chars.next();
                argument.push('\'');
            }
            '\'' => quoted = !quoted,
            '\\' if quoted => match chars.next()?.1 {
                'n' => argument.push('\n'),
                'r' => argument.push('\r'),
                '0' => argument.push('\0'),
                other => argument.push(other),
            },
            ',' if !quoted => arguments.push(String::new()),
            ')' if !quoted => return Some((arguments, &text[at + 1..])),
            _ => argument.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_as_the_server_spells_it() {
        use ColumnType as T;
        let members = |m: &[&str]| m.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (spelled, charset, expected) in [
            ("tinyint", None, T::Int8),
            ("tinyint(1)", None, T::Int8),
            ("tinyint unsigned", None, T::UInt8),
            ("smallint(5) unsigned zerofill", None, T::UInt16),
            ("mediumint", None, T::Int24),
            ("mediumint unsigned", None, T::UInt24),
            ("int", None, T::Int32),
            ("int(11)", None, T::Int32),
            ("int unsigned", None, T::UInt32),
            ("bigint", None, T::Int64),
            ("bigint(20) unsigned", None, T::UInt64),
            ("bit(1)", None, T::Boolean),
            ("bit(2)", None, T::Bits(2)),
            ("bit(64)", None, T::Bits(64)),
            ("decimal(10,2)", None, T::Decimal { precision: 10, scale: 2 }),
            ("decimal(65,30) unsigned", None, T::Decimal { precision: 65, scale: 30 }),
            ("decimal(5)", None, T::Decimal { precision: 5, scale: 0 }),
            ("float", None, T::Float),
            ("float(7,3)", None, T::Float),
            ("double unsigned", None, T::Double),
            ("date", None, T::Date),
            ("datetime", None, T::DateTime { fsp: 0 }),
            ("datetime(6)", None, T::DateTime { fsp: 6 }),
            ("timestamp(3)", None, T::Timestamp { fsp: 3 }),
            ("time(1)", None, T::Time { fsp: 1 }),
            ("time /* mariadb-5.3 */", None, T::Time { fsp: 0 }),
            ("year", None, T::Year),
            ("year(4)", None, T::Year),
            ("char(36)", Some("ascii"), T::Text),
            ("varchar(255)", Some("utf8mb4"), T::Text),
            ("longtext", Some("gbk"), T::Text),
            ("char(3)", Some("binary"), T::Binary),
            ("binary(16)", None, T::Binary),
            ("varbinary(10)", None, T::Binary),
            ("mediumblob", None, T::Binary),
            ("enum('a','b''c')", Some("utf8mb4"), T::Enum(members(&["a", "b'c"]))),
            ("enum('x,y',')','')", Some("utf8mb4"), T::Enum(members(&["x,y", ")", ""]))),
            (r"set('a\\b','ß','c\nd\0')", Some("utf8mb4"), T::Set(members(&["a\\b", "ß", "c\nd\0"]))),
            ("json", None, T::Json),
            ("geometry", None, T::Geometry),
            ("point", None, T::Geometry),
            ("geomcollection", None, T::Geometry),
            ("multipolygon", None, T::Geometry),
            ("vector(3)", None, T::Vector),
            ("POINT", None, T::Geometry),
        ] {
            assert_eq!(parse_column_type(spelled, charset), Ok(expected), "{spelled}");
        }
    }

    #[test]
    fn an_unknown_type_is_refused_by_name() {
        for unknown in ["inet6", "uuid", "", "enum('a'", "bit(65)", "varchar(9) /*M!100301 COMPRESSED*/"] {
            assert_eq!(parse_column_type(unknown, None), Err(UnsupportedType(unknown.into())));
        }
    }
}
