"""The kinds of columns that the matrix crosses with everything else: a line each, with the values at its edges.

A kind that a server lacks is left out there (`needs`, by the names of `shapes.lacks_of` and `maria` for MariaDB). Values are SQL
literals, legal in strict mode; `zeros` are values that are NULL in the lake, so that no key can have them. What mysql_cdc makes of a
kind is in `cdc`: "all" of its values are read, "some" of them are refused, "none" of them mean to it what they do to MySQL.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from shapes import LONG_ENUM, LONG_SET, blob, quoted, text


@dataclass(frozen=True)
class Kind:
    name: str
    sql: str
    values: tuple[str, ...]
    # Kinds of a group stand side by side in one table.
    group: str
    zeros: tuple[str, ...] = ()
    needs: str = ""
    # Whether MySQL takes such a column for a key, and a literal for its default.
    may_be_key: bool = True
    cdc: str = "all"

    def all_values(self) -> tuple[str, ...]:
        return self.values + self.zeros


def kinds(lacks: frozenset[str]) -> list[Kind]:
    """Every kind that a server has."""
    made = (*numbers(), *moments(), *texts(), *bytes_(), *chosen(), *others("json" in lacks))
    return [kind for kind in made if kind.needs not in lacks]


# --- numbers ---


def numbers() -> Iterable[Kind]:
    for name, bits in [("tinyint", 8), ("smallint", 16), ("mediumint", 24), ("int", 32), ("bigint", 64)]:
        top, half = 2**bits - 1, 2 ** (bits - 1)
        yield Kind(name, name, literals(-half, -half + 1, -1, 0, 1, half - 1), "numbers")
        # YEAR counts as a numeric column in the bitmap of signs; it stands between on purpose.
        if name == "smallint":
            yield Kind("year", "YEAR", literals(0, 1901, 1970, 2000, 2155), "numbers", cdc="some")
        yield Kind(f"{name}_unsigned", f"{name} UNSIGNED", literals(0, 1, half - 1, half, top - 1, top), "numbers")
    yield Kind("int_zerofill", "INT(7) ZEROFILL", literals(0, 42, 2**32 - 1), "numbers")
    yield Kind("bool", "TINYINT(1)", literals(0, 1, -128, 127), "numbers")
    for bits in (1, 2, 7, 8, 9, 33, 64):
        top = 2**bits - 1
        yield Kind(f"bit_{bits}", f"BIT({bits})", distinct(literals(0, 1, top // 2, top // 2 + 1, top)), "numbers")
    for precision, scale in [(1, 0), (2, 2), (5, 2), (9, 9), (10, 0), (18, 9), (20, 0), (38, 0), (38, 10), (38, 30), (39, 0), (65, 0), (65, 30)]:
        yield Kind(f"decimal_{precision}_{scale}", f"DECIMAL({precision},{scale})", decimals(precision, scale), "decimals")
    yield Kind("decimal_20_6_unsigned", "DECIMAL(20,6) UNSIGNED", tuple(v for v in decimals(20, 6) if v[0] != "-"), "decimals")
    floats = ("0e0", "-0e0", "1e-45", "-1e-45", "1.17549435e-38", "3.4028234e38", "-3.4028234e38", "16777216e0", "0.1e0", "1e0")
    doubles = (
        "0e0", "-0e0", "5e-324", "-5e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "-1.7976931348623157e308",
        "9007199254740993e0", "0.1e0", "0.30000000000000004e0",
    )  # fmt: skip
    yield Kind("float", "FLOAT", floats, "decimals")
    yield Kind("float_7_4", "FLOAT(7,4)", ("0", "-999.9999", "999.9999", "0.0001"), "decimals")
    yield Kind("double", "DOUBLE", doubles, "decimals")
    yield Kind("double_unsigned", "DOUBLE UNSIGNED", ("0e0", "0.1e0", "1.7976931348623157e308"), "decimals")


def literals(*values: int) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def decimals(precision: int, scale: int) -> tuple[str, ...]:
    def shown(digits: int) -> str:
        padded = str(digits).rjust(scale + 1, "0")
        return f"{padded[:-scale]}.{padded[-scale:]}" if scale else padded

    some = int("1234567890" * 7) % 10**precision
    top = 10**precision - 1
    return distinct((shown(top), f"-{shown(top)}", shown(0), shown(1), f"-{shown(1)}", shown(some), shown(10 ** (precision - 1))))


# --- moments ---


def moments() -> Iterable[Kind]:
    days = quotes("1000-01-01", "9999-12-31", "1969-12-31", "1970-01-01", "1582-10-15", "1900-02-28", "2000-02-29", "2024-02-29", "0001-01-01")
    yield Kind("date", "DATE", days, "moments", zeros=quotes("0000-00-00", "2024-00-10", "2024-05-00"), cdc="some")
    for digits in range(7):
        least, most = fraction("000001", digits), fraction("999999", digits)
        some = fraction("123456", digits)
        yield Kind(
            f"datetime_{digits}", f"DATETIME({digits})",
            quotes(
                "1000-01-01 00:00:00", f"9999-12-31 23:59:59{most}", f"1969-12-31 23:59:59{most}", "1970-01-01 00:00:00",
                f"2024-02-29 12:34:56{some}", f"0001-01-01 00:00:00{least}", f"2026-03-29 02:30:00{least}",
            ),
            "moments", zeros=quotes("0000-00-00 00:00:00", "2024-00-10 01:02:03"), cdc="some",
        )  # fmt: skip
        yield Kind(
            f"timestamp_{digits}", f"TIMESTAMP({digits})",
            quotes(
                f"1970-01-01 00:00:01{least}", f"2038-01-19 03:14:07{fraction('000000', digits)}", f"2024-02-29 23:59:59{most}",
                f"2026-03-29 01:30:00{some}", "2026-10-25 00:30:00",
            ),
            "moments", zeros=quotes("0000-00-00 00:00:00"), cdc="some",
        )  # fmt: skip
        yield Kind(
            f"time_{digits}", f"TIME({digits})",
            distinct(
                quotes(
                    "838:59:59", "-838:59:59", "00:00:00", "-00:00:01", f"-00:00:01{least}", f"23:59:59{most}", f"-12:34:56{some}",
                    f"100:00:00{least}",
                )
            ),
            "moments", cdc="some",
        )  # fmt: skip


def quotes(*values: str) -> tuple[str, ...]:
    return tuple(f"'{value}'" for value in values)


def fraction(six: str, digits: int) -> str:
    """The fraction of a second, whose last digit shows also where few are kept."""
    kept = six[:digits] if six != "000001" else six[-digits:] if digits else ""
    return f".{kept}" if digits else ""


# --- texts ---

# Words in each character set, all of which differ under its collation.
CHARSETS = {
    "utf8mb4": ["é€ü", "日本語", "😀", "👩‍👩‍👧 a", "ﷺ"], "latin1": ["é€ü", "ÿÀ", "£¥§"], "gbk": ["中文", "繁體", "汉字 and latin"],
    "utf8": ["日本語", "naïve", "ﷺ"], "ucs2": ["日本語", "Ελληνικά", "šđč"], "ascii": ["plain", "~!@#"], "latin2": ["ąž", "Łódź"],
    "cp1251": ["Привет", "ъ"], "koi8r": ["Привет", "ъ"], "greek": ["αβγ", "Ω"], "big5": ["中文", "一"], "sjis": ["日本語ｱ", "表"],
    "cp932": ["日本語①", "表"], "ujis": ["日本語ｱ", "表"], "euckr": ["한국어", "가"], "utf16": ["é中😀", "𐍈"], "utf16le": ["é中😀", "𐍈"],
    "utf32": ["é中😀", "𐍈"], "tis620": ["ภาษาไทย"], "macroman": ["é∑π"], "gb18030": ["中文㐀", "𠀀"],
}  # fmt: skip
# MySQL keeps text in these as mysql_cdc takes it to be.
CDC_READS = {"utf8mb4", "utf8", "ascii"}
# Spaces at either end, what SQL and CSV treat specially, and a NUL.
EVERYWHERE = ["", "a", "a ", " a", "  ", "it's", 'a "quoted", one', "back\\slash", "two\nlines\r\ttab", "nul\0nul"]


def texts() -> Iterable[Kind]:
    for charset, some in CHARSETS.items():
        group, cdc = f"texts_{charset}" if charset == "utf8mb4" else "texts", "all" if charset in CDC_READS else "none"
        longest = (some[0] * 40)[:40]
        words = tuple(text(word) for word in (*some, *EVERYWHERE, longest))
        in_charset = f"CHARACTER SET {charset}"
        needs = "gb18030" if charset == "gb18030" else ""
        yield Kind(f"varchar_{charset}", f"VARCHAR(40) {in_charset}", words, group, needs=needs, cdc=cdc)
        yield Kind(f"char_{charset}", f"CHAR(12) {in_charset}", shortened(some, 12), group, needs=needs, cdc=cdc)
        yield Kind(f"text_{charset}", f"TEXT {in_charset}", words, group, needs=needs, may_be_key=False, cdc=cdc)
    long_values = (text(""), text("é" * 255), text("x" * 255), text("😀" * 64))
    yield Kind("char_255", "CHAR(255) CHARACTER SET utf8mb4", long_values, "texts_utf8mb4")
    yield Kind("varchar_300", "VARCHAR(300) CHARACTER SET utf8mb4", (*long_values, text("w" * 300)), "texts_utf8mb4")
    yield Kind("varchar_bin", "VARCHAR(40) COLLATE utf8mb4_bin", tuple(map(text, ["", "a", "A", "a ", "á", "😀"])), "texts_utf8mb4")
    for name, length in [("tinytext", 255), ("mediumtext", 70_000), ("longtext", 70_000)]:
        values = (text(""), text(" "), text("x" * length), text("😀" * 60))
        yield Kind(name, f"{name} CHARACTER SET utf8mb4", values, "texts_utf8mb4", may_be_key=False)


def shortened(some: list[str], length: int) -> tuple[str, ...]:
    """CHAR loses spaces at its end, in MySQL itself."""
    return distinct(text(word[:length]) for word in (*some, "", "a", " a", "nul\0", some[0] * length))


# --- bytes ---


def bytes_() -> Iterable[Kind]:
    edges = (b"", b"\0", b"\0\0", b"a", b"a\0", b"a\0\0", b"a ", b"\xff\xfe\0\x80", b"\xff" * 5)
    # The log has them without the zeros at their end, and mysql_cdc leaves it at that.
    yield Kind("binary_5", "BINARY(5)", tuple(map(blob, edges)), "bytes", cdc="none")
    yield Kind("binary_255", "BINARY(255)", tuple(map(blob, (*edges, b"\xff" * 255))), "bytes", cdc="none")
    yield Kind("varbinary_300", "VARBINARY(300)", tuple(map(blob, (*edges, b"z" * 300))), "bytes", cdc="some")
    yield Kind("varchar_binary", "VARCHAR(20) CHARACTER SET binary", tuple(map(blob, edges)), "bytes", cdc="some")
    for name, length in [("tinyblob", 255), ("blob", 65_535), ("mediumblob", 70_000), ("longblob", 70_000)]:
        yield Kind(name, name, tuple(map(blob, (*edges, b"\x80" * length))), "bytes", may_be_key=False)


# --- one or some of a list ---


def chosen() -> Iterable[Kind]:
    yield Kind("enum", "ENUM('new','paid','größer','it''s','日本','')", tuple(map(text, ["new", "größer", "it's", "日本", ""])), "chosen")
    yield Kind("enum_latin1", "ENUM('é','ü') CHARACTER SET latin1", ("'é'", "'ü'"), "chosen", cdc="none")
    yield Kind("enum_gbk", "ENUM('中','文') CHARACTER SET gbk", ("'中'", "'文'"), "chosen", cdc="none")
    yield Kind("enum_300", f"ENUM({quoted(LONG_ENUM)})", quotes(*(LONG_ENUM[at] for at in (0, 126, 127, 254, 255, 299))), "chosen")
    yield Kind("set", "SET('a','b','ç','d')", quotes("", "a", "ç", "a,b,ç,d"), "chosen")
    yield Kind("set_9", f"SET({quoted(LONG_SET[:9])})", quotes("", "s8", "s0,s7,s8"), "chosen")
    yield Kind("set_64", f"SET({quoted(LONG_SET)})", quotes("", "s0", "s63", "s31,s32", ",".join(LONG_SET)), "chosen")


# --- documents, shapes, vectors ---

DOCUMENTS = [
    "null", "true", "false", "0", "-1", "32767", "-32768", "65535", "65536", "4294967295", "4294967296", "9223372036854775807",
    "-9223372036854775808", "18446744073709551615", "1.5", "-0.0", "1e100", "1e-7", '""', '"é中😀"', "[]", "{}", '{"": ""}',
    '{"b": 1, "a": 2, "aa": [true, false, null]}', "[" * 20 + "]" * 20, '"' + "x" * 128 + '"',
    '{"padding": "' + "x" * 70_000 + '", "n": 1}', '"\\u0000\\u001f\\u2028\\"\\\\"',
]  # fmt: skip
DEEP = ["[" * 100 + "]" * 100, '{"a": ' * 64 + "1" + "}" * 64]
# Documents that hold what text cannot say.
BUILT = [
    "JSON_OBJECT('dec', CAST(1.50 AS DECIMAL(10,3)), 'neg', CAST(-0.01 AS DECIMAL(5,2)), 'most', CAST('-12345678901234567890.1234567890' AS DECIMAL(65,30)))",
    "JSON_ARRAY(CAST('2020-01-02' AS DATE), CAST('9999-12-31 23:59:59.999999' AS DATETIME(6)), CAST('-838:59:59' AS TIME), CAST('-00:00:00.1' AS TIME(1)))",
    "JSON_ARRAY(x'6162', CAST(x'00ff' AS BINARY), 18446744073709551615, ST_GeomFromText('POINT(1 2)'))",
]
GEOMETRIES = {
    "point": ["POINT(0 0)", "POINT(-1.5 1e300)"],
    "linestring": ["LINESTRING(0 0, 1 1, 2 3)"],
    "polygon": ["POLYGON((0 0, 0 9, 9 9, 9 0, 0 0), (1 1, 1 2, 2 2, 2 1, 1 1))"],
    "multipoint": ["MULTIPOINT(0 0, 20 20)"],
    "multilinestring": ["MULTILINESTRING((0 0, 1 1), (5 5, 6 7))"],
    "multipolygon": ["MULTIPOLYGON(((0 0, 0 3, 3 3, 3 0, 0 0)), ((5 5, 5 7, 7 7, 7 5, 5 5)))"],
    "geometrycollection": ["GEOMETRYCOLLECTION(POINT(1 1), LINESTRING(0 0, 1 1))"],
}


def others(json_is_text: bool) -> Iterable[Kind]:
    documents = tuple(text(document) for document in DOCUMENTS)
    # Where documents are text, they may not be so deep, and functions only make more text.
    built = () if json_is_text else tuple(map(text, DEEP)) + tuple(BUILT)
    yield Kind("json", "JSON", (*documents, *built), "others", may_be_key=False, cdc="none")
    every = [shape for shapes in GEOMETRIES.values() for shape in shapes]
    yield Kind("geometry", "GEOMETRY", tuple(f"ST_GeomFromText('{shape}')" for shape in every), "others", may_be_key=False)
    for name, shapes in GEOMETRIES.items():
        yield Kind(name, name, tuple(f"ST_GeomFromText('{shape}')" for shape in shapes), "others", may_be_key=False)
    placed = ("ST_GeomFromText('POINT(52.5 13.4)', 4326)", "ST_GeomFromText('POINT(-90 180)', 4326)")
    yield Kind("point_4326", "POINT SRID 4326", placed, "others", needs="srid", may_be_key=False)
    vectors = tuple(f"STRING_TO_VECTOR('{v}')" for v in ("[0,0,0]", "[1,-2.5,3e38]", "[1.5e-38]"))
    yield Kind("vector", "VECTOR(3)", vectors, "others", needs="vector", may_be_key=False, cdc="none")
    yield Kind("vector_2048", "VECTOR", (*vectors, "STRING_TO_VECTOR(CONCAT('[', REPEAT('1,', 2047), '1]'))"), "others", needs="vector", may_be_key=False, cdc="none")
