"""The tables of the workload: their DDL, the key of each row number, and random values for their columns.

A row is known by its number. `key(number)` gives the SQL literals of its key columns, one-to-one, so a worker can address
the rows it owns without asking the server. Literals are SQL text; all values are legal in strict mode without
NO_ZERO_DATE and NO_ZERO_IN_DATE.
"""

import datetime
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

Literals = tuple[str, ...]


def text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def blob(value: bytes) -> str:
    return f"x'{value.hex()}'"


@dataclass(frozen=True)
class Column:
    """A column beside the key: its SQL type and what makes a random literal for it."""

    name: str
    definition: str
    literal: Callable[[random.Random], str]


@dataclass(frozen=True)
class Shape:
    """A table. `number` is a column too: a live phase learns from it which rows exist."""

    name: str
    key_columns: tuple[str, ...]
    key_definitions: tuple[str, ...]
    key: Callable[[int], Literals]
    columns: tuple[Column, ...]
    # Share of the seeded rows and of the live changes, against other tables.
    weight: float = 1.0
    rows_max: int = 1 << 60
    index: str = "PRIMARY KEY"
    extra_definitions: tuple[str, ...] = ()
    # Values are picked from this many ready-made rows, where making each row anew would be slow.
    value_pool: int = 0
    # Whether a key's letters may change their case; its collation then still finds it.
    folds_case: bool = False
    grows: bool = True

    def create(self) -> str:
        definitions = [f"`{name}` {sql}" for name, sql in zip(self.key_columns, self.key_definitions)]
        definitions.append("`number` BIGINT NOT NULL")
        definitions += [f"`{column.name}` {column.definition}" for column in self.columns]
        definitions += self.extra_definitions
        definitions.append(f"{self.index} ({', '.join(f'`{name}`' for name in self.key_columns)})")
        return f"CREATE TABLE `{self.name}` (\n  " + ",\n  ".join(definitions) + "\n) DEFAULT CHARSET utf8mb4"

    def key_is(self, number: int) -> str:
        return " AND ".join(f"`{name}` = {value}" for name, value in zip(self.key_columns, self.key(number)))

    def key_in(self, numbers: list[int]) -> str:
        if len(self.key_columns) == 1:
            return f"`{self.key_columns[0]}` IN ({','.join(self.key(number)[0] for number in numbers)})"
        names = ",".join(f"`{name}`" for name in self.key_columns)
        return f"({names}) IN ({','.join('(' + ','.join(self.key(number)) + ')' for number in numbers)})"


def nullable(share: float, make: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    return lambda rng: "NULL" if rng.random() < share else make(rng)


def one_of(*literals: str) -> Callable[[random.Random], str]:
    return lambda rng: rng.choice(literals)


def integer(low: int, high: int) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        edge = rng.random()
        if edge < 0.05:
            return str(low)
        if edge < 0.1:
            return str(high)
        if edge < 0.2:
            return str(rng.randint(max(low, -9), min(high, 9)))
        return str(rng.randint(low, high))

    return make


def decimal(precision: int, scale: int, unsigned: bool = False) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        edge = rng.random()
        if edge < 0.08:
            digits = 10**precision - 1
        elif edge < 0.16:
            digits = 1
        elif edge < 0.24:
            digits = 0
        else:
            digits = rng.randrange(10 ** rng.randint(1, precision))
        sign = "-" if digits and not unsigned and rng.random() < 0.5 else ""
        padded = str(digits).rjust(scale + 1, "0")
        return sign + (f"{padded[:-scale]}.{padded[-scale:]}" if scale else padded)

    return make


# Letters of one to four bytes in UTF-8, characters that SQL and CSV treat specially, and trailing blanks.
WORDS = [
    "alpha", "Straße", "déjà-vu", "日本語", "ключ", "😀👩‍👩‍👧", "it's", 'a "quoted" one', "back\\slash", "two\nlines",
    "tab\there", "comma, semicolon;", "trailing  ", "\u0000nul", "ﷺ", "e\u0301",
]  # fmt: skip
LATIN1_WORDS = ["plain", "Straße", "déjà", "ÿÀ", "£¥§", "", "x y"]
GBK_WORDS = ["plain", "中文字符", "繁體", "汉字 and latin", "", "，。"]
UCS2_WORDS = ["plain", "日本語", "Ελληνικά", "šđč", "", "ﷺ"]
UTF8MB3_WORDS = ["plain", "日本語", "naïve", "", "ﷺ"]


def words(choice: list[str], length_max: int) -> Callable[[random.Random], str]:
    return lambda rng: text(" ".join(rng.choice(choice) for _ in range(rng.randint(0, 4)))[:length_max])


def long_text(choice: list[str], length_max: int) -> Callable[[random.Random], str]:
    return lambda rng: text((rng.choice(choice) + " ") * rng.choice([0, 1, 3, 40, length_max // 12]))


def random_bytes(length_max: int, exact: bool = False) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        length = length_max if exact else rng.choice([0, 1, rng.randint(0, length_max), length_max])
        # Trailing zero bytes: BINARY(n) strips and pads with them.
        zeros = rng.choice([0, 0, 1, min(3, length)])
        return blob((rng.randbytes(length) + bytes(length))[: max(0, length - zeros)] + bytes(min(zeros, length)))

    return make


def date(rng: random.Random) -> str:
    edge = rng.random()
    if edge < 0.15:
        return rng.choice(["'1000-01-01'", "'9999-12-31'", "'1970-01-01'", "'1582-10-15'", "'2024-02-29'"])
    if edge < 0.2:
        # Zero and partial dates, which become null in the lake.
        return rng.choice(["'0000-00-00'", "'2024-00-10'", "'2024-05-00'"])
    return f"'{datetime.date(1900, 1, 1) + datetime.timedelta(days=rng.randrange(80000))}'"


def date_and_time(precision: int) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        edge = rng.random()
        if edge < 0.15:
            fraction = "." + "9" * precision if precision else ""
            return rng.choice(
                ["'1000-01-01 00:00:00'", f"'9999-12-31 23:59:59{fraction}'", "'1969-12-31 23:59:59'", "'1883-11-18 12:03:57'"]
            )
        if edge < 0.2:
            return rng.choice(["'0000-00-00 00:00:00'", "'2024-00-10 01:02:03'"])
        moment = datetime.datetime(1900, 1, 1) + datetime.timedelta(seconds=rng.randrange(7_000_000_000))
        return f"'{moment}{fractional_second(rng, precision)}'"

    return make


def timestamp(precision: int) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        edge = rng.random()
        if edge < 0.1:
            return rng.choice(["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'2026-03-29 01:30:00'", "'2026-10-25 00:30:00'"])
        if edge < 0.13:
            return "'0000-00-00 00:00:00'"
        moment = datetime.datetime(1970, 1, 2) + datetime.timedelta(seconds=rng.randrange(2_000_000_000))
        return f"'{moment}{fractional_second(rng, precision)}'"

    return make


def time_of(precision: int) -> Callable[[random.Random], str]:
    def make(rng: random.Random) -> str:
        edge = rng.random()
        if edge < 0.15:
            return rng.choice(["'838:59:59'", "'-838:59:59'", "'00:00:00'", "'-00:00:01'"])
        sign = rng.choice(["", "-"])
        hours = rng.choice([0, rng.randrange(24), rng.randrange(838)])
        return f"'{sign}{hours:02}:{rng.randrange(60):02}:{rng.randrange(60):02}{fractional_second(rng, precision)}'"

    return make


def fractional_second(rng: random.Random, precision: int) -> str:
    return f".{rng.randrange(10**precision):0{precision}}" if precision else ""


def floating(rng: random.Random) -> str:
    """A value that FLOAT and DOUBLE both hold."""
    if rng.random() < 0.2:
        return rng.choice(["0e0", "-0e0", "16777216e0", "1e-40", "3.4e38", "-3.4e38", "0.1e0"])
    return repr(struct.unpack("<f", struct.pack("<f", rng.uniform(-1, 1) * 10 ** rng.randint(-20, 20)))[0])


def double(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return rng.choice(["1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "-0e0", "9007199254740993e0"])
    return repr(rng.uniform(-1, 1) * 10 ** rng.randint(-200, 200))


def json_document(rng: random.Random) -> str:
    """JSON text, or a function call where the document holds types that JSON text can't express."""
    edge = rng.random()
    if edge < 0.1:
        return text(
            rng.choice(["null", "{}", "[]", '""', "0", "-1", "true", '"plain"', "1e100", "18446744073709551615", "-9223372036854775808"])
        )
    if edge < 0.2:
        return (
            f"JSON_OBJECT('decimal', CAST('{rng.randrange(10**9)}.{rng.randrange(10**9):09}' AS DECIMAL(30,9)), "
            f"'at', CAST('2024-02-29 23:59:59.{rng.randrange(10**6):06}' AS DATETIME(6)), 'day', CAST('2024-02-29' AS DATE), "
            f"'time', CAST('-12:34:56.5' AS TIME(1)), 'big', CAST({rng.randrange(2**63, 2**64)} AS UNSIGNED), "
            f"'bytes', CAST({blob(rng.randbytes(5))} AS BINARY))"
        )
    if edge < 0.25:
        depth = rng.randint(5, 48)
        return text('{"a":[' * depth + "1" + "]}" * depth)
    if edge < 0.26:
        # Large enough for JSONB's four-byte offsets.
        return text('{"padding":"' + "x" * 70_000 + f'","number":{rng.randrange(10**6)}}}')
    members = ",".join(f'"k{index}é":{scalar}' for index, scalar in enumerate(json_scalars(rng)))
    return text(f'{{"id":{rng.randrange(10**6)},"tags":["x","日本",{{"deep":[1,2,[3,null]]}}],{members}}}')


def json_text(rng: random.Random) -> str:
    """A document as text, for servers that keep it so."""
    members = ",".join(f'"k{index}é": {scalar}' for index, scalar in enumerate(json_scalars(rng)))
    return text(rng.choice([f'{{"id":{rng.randrange(10**6)}, "tags":["x","日本"],{members}}}', "null", "[1, 2.50]", '""']))


def json_scalars(rng: random.Random) -> list[str]:
    makers = [
        lambda: str(rng.randint(-(2**63), 2**63 - 1)),
        lambda: repr(rng.uniform(-1e6, 1e6)),
        lambda: rng.choice(["null", "true", "false"]),
        lambda: '"' + rng.choice(["plain", 'quote \\" inside', "tab\\t", "\\u20ac", "😀", ""]) + '"',
        lambda: str(rng.randint(-40000, 40000)),
    ]
    return [rng.choice(makers)() for _ in range(rng.randint(1, 6))]


def geometry(rng: random.Random) -> str:
    x, y = rng.uniform(-90, 90), rng.uniform(-90, 90)
    return rng.choice([
        f"ST_GeomFromText('POINT({x} {y})')",
        f"ST_GeomFromText('LINESTRING(0 0, {x} {y}, 3 4)')",
        f"ST_GeomFromText('POLYGON((0 0, 0 {abs(y) + 1}, {abs(x) + 1} {abs(y) + 1}, 0 0))')",
    ])  # fmt: skip


def point(srid: int) -> Callable[[random.Random], str]:
    return lambda rng: f"ST_GeomFromText('POINT({rng.uniform(-89, 89)} {rng.uniform(-89, 89)})', {srid})"


def vector(dimensions_max: int) -> Callable[[random.Random], str]:
    return lambda rng: "STRING_TO_VECTOR('[" + ",".join(f"{rng.uniform(-2, 2):.6g}" for _ in range(rng.randint(1, dimensions_max))) + "]')"


ENUM_MEMBERS = ["new", "paid", "größer", "it''s", "日本"]
LONG_ENUM = [f"member {index}" for index in range(300)]
LONG_SET = [f"s{index}" for index in range(64)]


def set_of(members: list[str]) -> Callable[[random.Random], str]:
    return lambda rng: "'" + ",".join(member for member in members if rng.random() < 0.2) + "'"


def quoted(members: list[str]) -> str:
    return ",".join(f"'{member}'" for member in members)


# Of columns of the wide table: what servers must have for them.
NEEDED = {"c_point_4326": "srid", "c_vector": "vector", "c_vector_default": "vector", "c_json": "json", "c_json_2": "json"}


def lacks_of(version: str) -> frozenset[str]:
    """What a server of this version does not have of what the tables are made of."""
    numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:3])
    if "MariaDB" in version:
        # Its JSON is text, so documents are written as such.
        return frozenset({"srid", "vector", "json"})
    since = {"srid": (8, 0, 3), "invisible": (8, 0, 23), "vector": (9, 0, 0)}
    return frozenset(what for what, first in since.items() if numbers < first)


def wide_columns(lacks: frozenset[str]) -> tuple[Column, ...]:
    """Every type of the column type table that the server has, nullable."""
    some_null = 0.12
    types: list[tuple[str, str, Callable[[random.Random], str]]] = []
    for name, bits in [("tinyint", 8), ("smallint", 16), ("mediumint", 24), ("int", 32), ("bigint", 64)]:
        types.append((f"c_{name}", name, integer(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)))
        # YEAR counts as a numeric column in the signedness bitmap of a TABLE_MAP; it stands in between on purpose.
        if name == "smallint":
            types.append(("c_year", "YEAR", one_of("0", "1901", "2155", "2026", "1999")))
        types.append((f"c_{name}_unsigned", f"{name} UNSIGNED", integer(0, 2**bits - 1)))
    types += [
        ("c_bool", "TINYINT(1)", one_of("0", "1", "7", "-128")),
        ("c_bit_1", "BIT(1)", one_of("0", "1")),
        ("c_bit_10", "BIT(10)", integer(0, 1023)),
        ("c_bit_64", "BIT(64)", integer(0, 2**64 - 1)),
        ("c_decimal_5_2", "DECIMAL(5,2)", decimal(5, 2)),
        ("c_decimal_18_0", "DECIMAL(18,0)", decimal(18, 0)),
        ("c_decimal_20_6_unsigned", "DECIMAL(20,6) UNSIGNED", decimal(20, 6, unsigned=True)),
        ("c_decimal_38_10", "DECIMAL(38,10)", decimal(38, 10)),
        ("c_decimal_38_30", "DECIMAL(38,30)", decimal(38, 30)),
        ("c_decimal_39_0", "DECIMAL(39,0)", decimal(39, 0)),
        ("c_decimal_65_30", "DECIMAL(65,30)", decimal(65, 30)),
        ("c_float", "FLOAT", floating),
        ("c_double", "DOUBLE", double),
        ("c_date", "DATE", date),
        ("c_datetime", "DATETIME", date_and_time(0)),
        ("c_datetime_3", "DATETIME(3)", date_and_time(3)),
        ("c_datetime_6", "DATETIME(6)", date_and_time(6)),
        ("c_timestamp", "TIMESTAMP", timestamp(0)),
        ("c_timestamp_2", "TIMESTAMP(2)", timestamp(2)),
        ("c_timestamp_6", "TIMESTAMP(6)", timestamp(6)),
        ("c_time", "TIME", time_of(0)),
        ("c_time_1", "TIME(1)", time_of(1)),
        ("c_time_2", "TIME(2)", time_of(2)),
        ("c_time_3", "TIME(3)", time_of(3)),
        ("c_time_5", "TIME(5)", time_of(5)),
        ("c_time_6", "TIME(6)", time_of(6)),
        ("c_char", "CHAR(12)", words(["alpha", "ß", "日本", "a b"], 12)),
        # More than 255 bytes: its length takes two bytes, and the metadata is packed oddly.
        ("c_char_long", "CHAR(100)", words(WORDS, 100)),
        ("c_char_latin1", "CHAR(20) CHARACTER SET latin1", words(LATIN1_WORDS, 20)),
        ("c_varchar", "VARCHAR(60)", words(WORDS, 60)),
        ("c_varchar_long", "VARCHAR(1000)", words(WORDS, 1000)),
        ("c_varchar_ascii", "VARCHAR(40) CHARACTER SET ascii", words(["plain", "x", "~!@#"], 40)),
        ("c_varchar_bin", "VARCHAR(40) COLLATE utf8mb4_bin", words(WORDS, 40)),
        ("c_varchar_latin1", "VARCHAR(300) CHARACTER SET latin1", words(LATIN1_WORDS, 300)),
        ("c_varchar_gbk", "VARCHAR(80) CHARACTER SET gbk", words(GBK_WORDS, 80)),
        ("c_varchar_ucs2", "VARCHAR(80) CHARACTER SET ucs2", words(UCS2_WORDS, 80)),
        ("c_varchar_utf8mb3", "VARCHAR(80) CHARACTER SET utf8mb3", words(UTF8MB3_WORDS, 80)),
        ("c_tinytext", "TINYTEXT", words(WORDS, 40)),
        ("c_text", "TEXT", long_text(WORDS, 3000)),
        ("c_text_latin1", "TEXT CHARACTER SET latin1", long_text(LATIN1_WORDS, 3000)),
        ("c_text_gbk", "TEXT CHARACTER SET gbk", long_text(GBK_WORDS, 500)),
        ("c_text_ucs2", "TEXT CHARACTER SET ucs2", long_text(UCS2_WORDS, 500)),
        ("c_mediumtext", "MEDIUMTEXT", long_text(WORDS, 9000)),
        ("c_longtext", "LONGTEXT", long_text(WORDS, 9000)),
        ("c_binary", "BINARY(8)", random_bytes(8)),
        ("c_binary_long", "BINARY(255)", random_bytes(255)),
        ("c_varbinary", "VARBINARY(20)", random_bytes(20)),
        ("c_varbinary_long", "VARBINARY(600)", random_bytes(600)),
        ("c_tinyblob", "TINYBLOB", random_bytes(255)),
        ("c_blob", "BLOB", random_bytes(1000)),
        ("c_mediumblob", "MEDIUMBLOB", random_bytes(3000)),
        ("c_longblob", "LONGBLOB", random_bytes(3000)),
        ("c_enum", f"ENUM({quoted(ENUM_MEMBERS)})", one_of(*(f"'{member}'" for member in ENUM_MEMBERS))),
        ("c_enum_long", f"ENUM({quoted(LONG_ENUM)})", integer(1, 300)),
        ("c_enum_latin1", "ENUM('é','ü') CHARACTER SET latin1", one_of("'é'", "'ü'")),
        ("c_set", "SET('a','b','ç','d')", set_of(["a", "b", "ç", "d"])),
        ("c_set_long", f"SET({quoted(LONG_SET)})", set_of(LONG_SET)),
        ("c_json", "JSON", json_document),
        ("c_json_2", "JSON", json_document),
        ("c_geometry", "GEOMETRY", geometry),
        ("c_point", "POINT", point(0)),
        ("c_point_4326", "POINT SRID 4326", point(4326)),
        ("c_vector", "VECTOR(8)", vector(8)),
        ("c_vector_default", "VECTOR", vector(40)),
    ]
    types = [entry for entry in types if NEEDED.get(entry[0]) not in lacks]
    if "json" in lacks:
        types.append(("c_json_text", "JSON", json_text))
    return tuple(Column(name, f"{sql} NULL", nullable(some_null, make)) for name, sql, make in types)


def narrow_columns() -> tuple[Column, ...]:
    return (
        Column("amount", "DECIMAL(14,3) NULL", nullable(0.1, decimal(14, 3))),
        Column("label", "VARCHAR(120) NULL", nullable(0.1, words(WORDS, 120))),
        Column("flag", "TINYINT(1) NOT NULL", one_of("0", "1")),
        Column("happened_at", "DATETIME(6) NULL", nullable(0.1, date_and_time(6))),
        Column("counter", "INT UNSIGNED NOT NULL", integer(0, 2**31)),
    )


def mixed_text(number: int) -> str:
    """Distinct for every number under case- and accent-insensitive collations too."""
    return f"{['ключ', '日本', 'Straße', 'key', '😀'][number % 5]}-{number}-{'é' * (number % 3)}"


def variable_bytes(number: int) -> bytes:
    """Distinct byte strings of many lengths, some of which differ only by zero bytes at the end."""
    return (number // 3).to_bytes(((number // 3).bit_length() + 7) // 8 or 1, "little") + bytes(number % 3) + b"\x01" + bytes(number % 3)


def shapes(lacks: frozenset[str] = frozenset()) -> list[Shape]:
    narrow = narrow_columns()
    first_day, first_moment = datetime.date(1000, 1, 1), datetime.datetime(1900, 1, 1)
    return [
        Shape("t_int", ("id",), ("INT NOT NULL",), lambda n: (str(n if n % 2 == 0 else -n),), narrow, weight=3),
        Shape("t_auto", ("id",), ("BIGINT NOT NULL AUTO_INCREMENT",), lambda n: (str(n + 1),), narrow, weight=3),
        Shape("t_unsigned", ("id",), ("BIGINT UNSIGNED NOT NULL",), lambda n: (str(2**64 - 1 - n * (1 if n % 2 else 10**12)),), narrow),
        Shape(
            "t_composite", ("shop", "code"), ("INT NOT NULL", "VARCHAR(40) NOT NULL"),
            lambda n: (str(n % 97 - 40), text(mixed_text(n))), narrow, weight=2,
        ),
        Shape("t_binary16", ("id",), ("BINARY(16) NOT NULL",), lambda n: (blob(n.to_bytes(8, "little") + bytes(8)),), narrow),
        Shape("t_varbinary", ("id",), ("VARBINARY(40) NOT NULL",), lambda n: (blob(variable_bytes(n)),), narrow),
        Shape("t_varchar", ("id",), ("VARCHAR(60) NOT NULL",), lambda n: (text(mixed_text(n)),), narrow, folds_case=True),
        Shape("t_char", ("id",), ("CHAR(14) CHARACTER SET latin1 NOT NULL",), lambda n: (f"'Ü{n:010}'",), narrow),
        Shape("t_decimal", ("id",), ("DECIMAL(24,6) NOT NULL",), lambda n: (f"{n * (1 if n % 2 else -1)}.{n % 1000:03}000",), narrow),
        Shape(
            "t_date", ("day",), ("DATE NOT NULL",),
            lambda n: (f"'{first_day + datetime.timedelta(days=n)}'",), narrow, rows_max=1_000_000,
        ),
        Shape(
            "t_datetime", ("at",), ("DATETIME(6) NOT NULL",),
            lambda n: (f"'{first_moment + datetime.timedelta(seconds=n * 17, microseconds=n % 1000)}'",), narrow,
        ),
        Shape(
            "t_unique", ("code",), ("VARCHAR(30) COLLATE utf8mb4_bin NOT NULL",), lambda n: (f"'code-{n:x}'",), narrow,
            index="UNIQUE KEY",
        ),
        Shape(
            "t_generated", ("id",), ("INT NOT NULL",), lambda n: (str(n),), narrow, weight=0.5,
            extra_definitions=(
                "`doubled` BIGINT GENERATED ALWAYS AS (`counter` * 2) STORED",
                "`shouted` VARCHAR(140) GENERATED ALWAYS AS (CONCAT(`label`, '!')) VIRTUAL",
                f"`hidden` INT NOT NULL DEFAULT 5{'' if 'invisible' in lacks else ' INVISIBLE'}",
            ),
        ),
        Shape("t_wide", ("id",), ("INT NOT NULL",), lambda n: (str(n),), wide_columns(lacks), weight=0.3, value_pool=160),
        Shape("t_tiny", ("id",), ("TINYINT NOT NULL",), lambda n: (str(n),), narrow, weight=0.2, rows_max=3, grows=False),
        Shape("t_empty", ("id",), ("INT NOT NULL",), lambda n: (str(n),), narrow, weight=0, rows_max=0, grows=False),
    ]  # fmt: skip


def late_shape(ordinal: int) -> Shape:
    """A table that appears in the middle of the live phase."""
    return Shape(f"t_late_{ordinal}", ("id",), ("INT NOT NULL",), lambda n: (str(n),), narrow_columns())
