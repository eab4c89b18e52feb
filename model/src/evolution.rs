//! What a lake table must become before it can hold rows of other source schemas than its own. Pure.

use crate::absence::Absences;
use crate::key::keeps_form;
use crate::order::Order;
use crate::schema::{Column, TableSchema};
use crate::value::ColumnType;

/// Of which moment a schema of the source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// That of rows of this order, which come with it.
    Of(Order),
    /// The source was asked for it somewhere behind its place in the stream. What cannot be followed is left to rows that
    /// come with it: they may never come.
    Ahead,
    /// As well, but the table can begin anew with these columns, so what cannot be followed is told at once.
    Load,
}

/// How a lake table must change so that it can hold rows of another source schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evolution {
    /// The lake table already holds every column.
    None,
    /// These columns are added at the end, nullable; nothing is rewritten.
    Add(Vec<Column>),
    /// Columns get other types or are emptied. No reader agrees with another on files of several types, so every data file
    /// is rewritten.
    Rewrite(Rewrite),
    /// It cannot follow; says why.
    Refused(String),
}

/// What becomes of a table's columns when its data files are rewritten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// Lake columns with the types that they get; every value stays what it is.
    pub widened: Vec<Column>,
    /// Lake columns of which the source was without, and whose names it uses again, with the types that they get: NULL in
    /// every row from before.
    pub emptied: Vec<Column>,
    /// These are added at the end.
    pub added: Vec<Column>,
}

/// What must happen to `lake` (the columns a table has), of which `absences` says when its source was without them, before
/// rows of `source` can enter it.
///
/// Columns are matched by name. A column that the source no longer has stays and is NULL from then on. One that is narrower
/// at the source than in the lake is held as it is. A table that is appended to needs no key, so a changed one does not
/// matter to it.
pub fn evolution(lake: &TableSchema, absences: &Absences, source: &TableSchema, moment: Moment) -> Evolution {
    if let Some(why) = changed_key(lake, source) {
        return Evolution::Refused(why);
    }
    let mut rewrite = Rewrite::default();
    for column in &source.columns {
        match column_evolution(lake, absences, column, moment) {
            Step::Holds => {}
            Step::Add => rewrite.added.push(column.clone()),
            Step::Widen(column) => rewrite.widened.push(column),
            Step::Empty(column) => rewrite.emptied.push(column),
            Step::Refuse(why) => return Evolution::Refused(why),
        }
    }
    match rewrite {
        Rewrite { widened, emptied, .. } if !(widened.is_empty() && emptied.is_empty()) => {
            Evolution::Rewrite(Rewrite { widened, emptied, added: rewrite.added })
        }
        Rewrite { added, .. } if !added.is_empty() => Evolution::Add(added),
        _ => Evolution::None,
    }
}

fn changed_key(lake: &TableSchema, source: &TableSchema) -> Option<String> {
    let differs = !lake.layout.is_append() && is_of_other_columns(&lake.key_columns(), &source.key_columns());
    differs.then(|| {
        format!("the record key changed from ({}) to ({})", lake.key_names().join(", "), source.key_names().join(", "))
    })
}

/// Whether two record keys are of other columns, or of the same in another order.
pub fn is_of_other_columns(before: &[Column], now: &[Column]) -> bool {
    let names = |key: &[Column]| -> Vec<String> { key.iter().map(|column| column.name.to_ascii_lowercase()).collect() };
    names(before) != names(now)
}

/// Whether the columns of a record key tell other keys than those of the same table before: by their names, or by types of which
/// equal values have another form. The rows of a table whose key is another one cannot be told from the former ones.
pub fn is_other_key(before: &[Column], now: &[Column]) -> bool {
    is_of_other_columns(before, now) || before.iter().zip(now).any(|(before, now)| forms_differ(&before.ty, &now.ty))
}

/// Whether record keys of one type have another form than those of the other, whichever of them is wider.
fn forms_differ(one: &ColumnType, other: &ColumnType) -> bool {
    let (one, other) = (one.arrow(), other.arrow());
    one != other && !keeps_form(&one, &other) && !keeps_form(&other, &one)
}

/// What one column of the source asks for.
enum Step {
    /// Nothing: the lake has it, or has no use for it.
    Holds,
    Add,
    Widen(Column),
    Empty(Column),
    Refuse(String),
}

fn column_evolution(lake: &TableSchema, absences: &Absences, column: &Column, moment: Moment) -> Step {
    let is_former = |name: &str| matches!(moment, Moment::Of(at) if absences.is_former(name, at));
    let Some(at) = lake.column_index(&column.name) else {
        if lake.makes(&column.name) {
            return Step::Refuse(format!("column {} has the name of a partition column", column.name));
        }
        return if is_former(&column.name) { Step::Holds } else { Step::Add };
    };
    let held = &lake.columns[at];
    let is_former = is_former(&held.name);
    let fits = column.ty.fits(&held.ty);
    let begins_anew = !is_former
        && (absences.has_former_values(&held.name)
            || !fits && absences.is_unused(&held.name) && matches!(moment, Moment::Of(_)));
    if begins_anew {
        // A wider type stays: rows that came before the absence was known may have it.
        let ty = if fits { held.ty.clone() } else { column.ty.clone() };
        return match why_fixed(lake, at) {
            Some(why) => {
                Step::Refuse(format!("column {} was dropped and its name is used again, and {why}", held.name))
            }
            None => Step::Empty(Column { name: held.name.clone(), ty, nullable: column.nullable }),
        };
    }
    let changed = || format!("column {} changed its type from {} to {}", held.name, held.ty.delta(), column.ty.delta());
    // Its rows would be looked for by other keys than they are known by.
    let has_other_keys = || Step::Refuse(format!("{}, and record keys would change their form", changed()));
    if is_former || fits {
        let holds = moment == Moment::Ahead || !tells_keys_otherwise(lake, at, column);
        return if holds { Step::Holds } else { has_other_keys() };
    }
    if !held.ty.widens_to(&column.ty) {
        return if moment == Moment::Ahead { Step::Holds } else { Step::Refuse(changed()) };
    }
    if partitions_by(lake, at) {
        return Step::Refuse(format!("{}, and the table is partitioned by it", changed()));
    }
    if tells_keys_otherwise(lake, at, column) {
        return has_other_keys();
    }
    Step::Widen(Column { name: held.name.clone(), ..column.clone() })
}

/// Whether record keys made of `column` have another form than those made of the lake's at `at`, which is part of the key.
fn tells_keys_otherwise(lake: &TableSchema, at: usize, column: &Column) -> bool {
    lake.key.contains(&at) && forms_differ(&lake.columns[at].ty, &column.ty)
}

/// Why the values of the column at `at` cannot go.
fn why_fixed(lake: &TableSchema, at: usize) -> Option<&'static str> {
    if lake.key.contains(&at) {
        return Some("it is part of the record key");
    }
    partitions_by(lake, at).then_some("the table is partitioned by it")
}

fn partitions_by(lake: &TableSchema, at: usize) -> bool {
    lake.layout.partitions.iter().any(|p| p.column.eq_ignore_ascii_case(&lake.columns[at].name))
}

/// A lake table that can hold rows of several schemas of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    pub schema: TableSchema,
    pub absences: Absences,
    /// Whether its data files must be rewritten before the rows can enter it; otherwise columns are added at most.
    pub rewrites: bool,
}

/// What `lake` must become so that it can hold rows of all of `sources`, which come together, and what is known then of
/// columns that the source was without.
///
/// # Errors
/// Says what cannot be followed.
pub fn fit(lake: &TableSchema, absences: &Absences, sources: &[(&TableSchema, Moment)]) -> Result<Fit, String> {
    let mut fit = Fit { schema: lake.clone(), absences: absences.clone(), rewrites: false };
    // First of all: what comes together need not come in order.
    fit.note_absences(sources);
    fit.note_former(sources);
    for (source, moment) in sources {
        let Rewrite { widened, emptied, added } = match evolution(&fit.schema, &fit.absences, source, *moment) {
            Evolution::None => Rewrite::default(),
            Evolution::Add(added) => Rewrite { added, ..Rewrite::default() },
            Evolution::Rewrite(rewrite) => rewrite,
            Evolution::Refused(why) => return Err(why),
        };
        fit.rewrites |= !widened.is_empty() || !emptied.is_empty();
        emptied.iter().for_each(|column| fit.absences.note_emptied(&column.name));
        widened.into_iter().chain(emptied).for_each(|column| fit.set(column));
        added.into_iter().for_each(|column| fit.add(column));
        if let Moment::Of(at) = moment {
            fit.note_used(source, *at);
        }
    }
    let Fit { schema, absences, .. } = &mut fit;
    absences.retain(|name| schema.columns.iter().any(|column| column.name == name));
    Ok(fit)
}

impl Fit {
    /// Takes note of what each of `sources` lacks: of the lake's columns, and of each other's.
    fn note_absences(&mut self, sources: &[(&TableSchema, Moment)]) {
        let lake = &self.schema;
        let of_sources = sources.iter().flat_map(|(source, _)| &source.columns);
        let new = of_sources.filter(|column| lake.column_index(&column.name).is_none());
        let names: Vec<&str> = lake.columns.iter().chain(new).map(|column| column.name.as_str()).collect();
        for (source, moment) in sources {
            let Moment::Of(at) = moment else { continue };
            for name in names.iter().filter(|name| source.column_index(name).is_none()) {
                self.absences.note_absent(name, *at);
            }
        }
    }

    /// Takes note of values that come late, from before the source was without their column.
    fn note_former(&mut self, sources: &[(&TableSchema, Moment)]) {
        for (source, moment) in sources {
            if let Moment::Of(at) = moment {
                self.note_used_if(source, *at, |absences, name| absences.is_former(name, *at));
            }
        }
    }

    fn note_used(&mut self, source: &TableSchema, at: Order) {
        self.note_used_if(source, at, |_, _| true);
    }

    fn note_used_if(&mut self, source: &TableSchema, at: Order, counts: impl Fn(&Absences, &str) -> bool) {
        for Column { name, .. } in &self.schema.columns {
            if source.column_index(name).is_some() && counts(&self.absences, name) {
                self.absences.note_used(name, at);
            }
        }
    }

    fn set(&mut self, column: Column) {
        if let Some(at) = self.schema.column_index(&column.name) {
            self.schema.columns[at].ty = column.ty;
        }
    }

    fn add(&mut self, column: Column) {
        let absent = self.absences.get(&column.name).map(|known| known.until);
        self.absences.begin(&column.name, absent);
        self.schema.columns.push(column);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, TableMode};
    use crate::schema::TableId;

    fn schema(columns: &[(&str, ColumnType)], key: &[usize]) -> TableSchema {
        TableSchema {
            table: TableId::new("shop", "orders"),
            columns: columns
                .iter()
                .map(|(name, ty)| Column { name: (*name).into(), ty: ty.clone(), nullable: true })
                .collect(),
            key: key.to_vec(),
            layout: Layout::default(),
        }
    }

    fn decimal(precision: u8, scale: u8) -> ColumnType {
        ColumnType::Decimal { precision, scale }
    }

    fn at(seq: i64) -> Order {
        Order::new(1, seq)
    }

    /// Of rows that come while no column was ever absent.
    fn evolved(lake: &TableSchema, source: &TableSchema) -> Evolution {
        evolution(lake, &Absences::default(), source, Moment::Of(at(1)))
    }

    #[test]
    fn added_columns_are_listed_and_dropped_ones_stay() {
        let lake = schema(&[("id", ColumnType::Int32), ("a", ColumnType::Text)], &[0]);
        let source = schema(&[("id", ColumnType::Int32), ("b", ColumnType::Date)], &[0]);
        let Evolution::Add(added) = evolved(&lake, &source) else { panic!("expected an addition") };
        assert_eq!(added[0].name, "b");
    }

    #[test]
    fn what_a_type_becomes_is_exact_or_refused_with_both_types() {
        use ColumnType as T;
        let of = |ty: &T| schema(&[("id", T::Int64), ("C", ty.clone())], &[0]);
        let widened = [
            (T::Int8, T::Int16),
            (T::Int8, T::UInt8),
            (T::UInt8, T::Int24),
            (T::Int24, T::Int64),
            (T::Int32, T::Int64),
            (T::Int32, T::UInt32),
            (T::UInt32, T::UInt64),
            (T::Int64, T::UInt64),
            (T::Year, T::Int32),
            (T::Int8, decimal(3, 0)),
            (T::Int32, decimal(14, 4)),
            (T::Int64, decimal(19, 0)),
            (T::UInt64, decimal(38, 18)),
            (T::Float, T::Double),
            (decimal(10, 2), decimal(14, 4)),
            (decimal(10, 2), decimal(11, 2)),
            (decimal(10, 2), decimal(38, 30)),
        ];
        for (from, to) in widened {
            let expected = Column { name: "C".into(), ty: to.clone(), nullable: true };
            let source = schema(&[("id", T::Int64), ("c", to.clone())], &[0]);
            let Evolution::Rewrite(rewrite) = evolved(&of(&from), &source) else { panic!("{from:?} to {to:?}") };
            assert_eq!(rewrite, Rewrite { widened: vec![expected], ..Rewrite::default() }, "{from:?} to {to:?}");
            // Late rows, and a column that is made narrower: the lake holds them as they are.
            assert_eq!(evolved(&of(&to), &of(&from)), Evolution::None, "{to:?} to {from:?}");
        }
        let held = [(T::UInt8, T::Int16), (T::UInt16, T::Int32), (T::Text, T::Json), (T::UInt64, decimal(20, 0))];
        for (one, other) in held {
            assert_eq!(evolved(&of(&one), &of(&other)), Evolution::None, "{one:?} to {other:?}");
            assert_eq!(evolved(&of(&other), &of(&one)), Evolution::None, "{other:?} to {one:?}");
        }
        let refused = [
            (T::Int32, decimal(9, 0)),
            (T::Int32, decimal(11, 2)),
            (T::UInt64, decimal(20, 1)),
            (T::Int32, T::Double),
            (T::Int8, T::Year),
            (T::Int32, T::Time { fsp: 0 }),
            (T::Time { fsp: 0 }, decimal(38, 0)),
            (T::Boolean, T::Int8),
            (T::Boolean, T::Bits(8)),
            (T::Double, decimal(38, 10)),
            (decimal(10, 2), decimal(12, 5)),
            (decimal(10, 2), decimal(12, 1)),
            (decimal(10, 2), decimal(40, 2)),
            (decimal(10, 2), T::Double),
            (T::Date, T::DateTime { fsp: 0 }),
            (T::DateTime { fsp: 0 }, T::Timestamp { fsp: 0 }),
            (T::Int32, T::Text),
            (T::Text, T::Binary),
        ];
        for (from, to) in refused {
            let Evolution::Refused(why) = evolved(&of(&from), &of(&to)) else { panic!("{from:?} to {to:?}") };
            assert!(why.contains(&format!("C changed its type from {} to {}", from.delta(), to.delta())), "{why}");
        }
    }

    #[test]
    fn a_key_column_is_widened_only_if_keys_keep_their_form() {
        let of = |ty: ColumnType| schema(&[("id", ty), ("v", ColumnType::Text)], &[0]);
        let kept = [
            (ColumnType::Int32, ColumnType::Int64),
            (ColumnType::Float, ColumnType::Double),
            (decimal(10, 2), decimal(12, 2)),
        ];
        for (from, to) in kept {
            assert!(matches!(evolved(&of(from), &of(to)), Evolution::Rewrite(_)));
        }
        let changed = [
            (ColumnType::Int32, decimal(12, 0)),
            (ColumnType::Int64, ColumnType::UInt64),
            (decimal(10, 2), decimal(12, 4)),
            (decimal(18, 0), decimal(20, 0)),
        ];
        for (from, to) in changed {
            assert!(matches!(evolved(&of(from), &of(to)), Evolution::Refused(why) if why.contains("their form")));
        }
        let lake = of(ColumnType::Int32);
        let keyless = TableSchema { key: Vec::new(), ..lake.clone() };
        assert!(matches!(evolved(&lake, &keyless), Evolution::Refused(_)));
    }

    #[test]
    fn a_key_is_another_one_by_its_columns_or_by_the_form_of_their_values() {
        let key =
            |columns: &[(&str, ColumnType)]| schema(columns, &(0..columns.len()).collect::<Vec<_>>()).key_columns();
        let (int, long, text) = (ColumnType::Int32, ColumnType::Int64, ColumnType::Text);
        let id = key(&[("id", int.clone())]);
        for same in [key(&[("ID", long.clone())]), id.clone()] {
            assert!(!is_other_key(&id, &same) && !is_other_key(&same, &id));
        }
        let others = [
            key(&[("code", int.clone())]),
            key(&[("id", int.clone()), ("code", text.clone())]),
            key(&[("id", text)]),
            key(&[("id", ColumnType::UInt64)]),
        ];
        for other in others {
            assert!(is_other_key(&id, &other) && is_other_key(&other, &id), "{other:?}");
        }
        let (ab, ba) = (key(&[("a", int.clone()), ("b", int.clone())]), key(&[("b", int.clone()), ("a", int)]));
        assert!(is_other_key(&ab, &ba));
    }

    #[test]
    fn a_table_that_is_appended_to_does_not_mind_its_key() {
        let mut lake = schema(&[("id", ColumnType::Int32)], &[0]);
        lake.layout.mode = TableMode::Append;
        let keyless = schema(&[("id", ColumnType::Int32)], &[]);
        assert_eq!(evolved(&lake, &keyless), Evolution::None);
        let other = schema(&[("id", ColumnType::Text)], &[0]);
        assert!(matches!(evolved(&lake, &other), Evolution::Refused(_)));
    }

    #[test]
    fn a_column_that_the_table_is_partitioned_by_stays_as_it_is() {
        let mut lake = schema(&[("id", ColumnType::Int32), ("n", ColumnType::Int32), ("at", ColumnType::Date)], &[0]);
        lake.layout.partitions = vec!["d = day(at)".parse().unwrap(), "n".parse().unwrap()];
        let mut source = schema(&[("id", ColumnType::Int32), ("N", ColumnType::Int64)], &[0]);
        assert!(matches!(evolved(&lake, &source), Evolution::Refused(why) if why.contains("partitioned by")));
        source.columns[1] = Column { name: "D".into(), ty: ColumnType::Date, nullable: true };
        assert!(matches!(evolved(&lake, &source), Evolution::Refused(why) if why.contains("column D")));
        let mut absences = Absences::default();
        absences.note_absent("at", at(5));
        source.columns[1] = Column { name: "at".into(), ty: ColumnType::Date, nullable: true };
        let refused = evolution(&lake, &absences, &source, Moment::Of(at(6)));
        assert!(matches!(refused, Evolution::Refused(why) if why.contains("used again")));
        assert_eq!(evolution(&lake, &absences, &source, Moment::Of(at(4))), Evolution::None);
    }

    fn two(ty: ColumnType) -> TableSchema {
        schema(&[("id", ColumnType::Int64), ("c", ty)], &[0])
    }

    fn one() -> TableSchema {
        schema(&[("id", ColumnType::Int64)], &[0])
    }

    #[test]
    fn a_name_is_used_again_only_once_its_former_values_are_gone() {
        let lake = two(ColumnType::Int32);
        let dropped = fit(&lake, &Absences::default(), &[(&one(), Moment::Of(at(8)))]).unwrap();
        assert!(!dropped.rewrites && dropped.schema == lake && dropped.absences.has_former_values("c"));
        for (again, kept) in [(ColumnType::Int32, ColumnType::Int32), (ColumnType::Text, ColumnType::Text)]
            .into_iter()
            .chain([(ColumnType::Int8, ColumnType::Int32)])
        {
            let source = two(again);
            for moment in [Moment::Of(at(10)), Moment::Ahead, Moment::Load] {
                let back = fit(&lake, &dropped.absences, &[(&source, moment)]).unwrap();
                assert!(back.rewrites && back.schema == two(kept.clone()), "{moment:?}");
                assert!(!back.absences.keeps("c", at(8)) && back.absences.keeps("c", at(10)));
                assert!(!fit(&back.schema, &back.absences, &[(&source, Moment::Of(at(11)))]).unwrap().rewrites);
            }
            // Rows from before it was dropped, that come late.
            assert!(!fit(&lake, &dropped.absences, &[(&source, Moment::Of(at(7)))]).unwrap().rewrites);
        }
    }

    #[test]
    fn what_comes_together_is_looked_at_as_a_whole() {
        let (lake, bare, text) = (two(ColumnType::Int32), one(), two(ColumnType::Text));
        let sources = [(&lake, Moment::Of(at(5))), (&bare, Moment::Of(at(8))), (&text, Moment::Of(at(10)))];
        let expected = fit(&lake, &Absences::default(), &sources).unwrap();
        assert!(expected.rewrites && expected.schema == text && !expected.absences.keeps("c", at(5)));
        let late = [sources[2], sources[0], sources[1]];
        assert_eq!(fit(&lake, &Absences::default(), &late).unwrap(), expected);
        // Added, dropped and added again while the lake has no such column: nothing is to be rewritten.
        let (int, sources) = (two(ColumnType::Int32), |int, bare| {
            [(int, Moment::Of(at(5))), (bare, Moment::Of(at(8))), (&text, Moment::Of(at(10)))]
        });
        let added = fit(&bare, &Absences::default(), &sources(&int, &bare)).unwrap();
        assert!(!added.rewrites && added.schema == text);
        assert!(!added.absences.keeps("c", at(5)) && added.absences.keeps("c", at(10)));
    }

    #[test]
    fn a_value_that_comes_late_goes_before_its_columns_name_is_used_again() {
        let lake = two(ColumnType::Int32);
        // Nothing of the column was there before it was dropped, as far as was known.
        let mut absences = Absences::default();
        absences.begin("c", Some(at(2)));
        absences.note_absent("c", at(80));
        let (late, now) = ((&lake, Moment::Of(at(50))), (&lake, Moment::Of(at(100))));
        for sources in [[late, now], [now, late]] {
            let both = fit(&lake, &absences, &sources).unwrap();
            assert!(both.rewrites && !both.absences.keeps("c", at(50)) && both.absences.keeps("c", at(100)));
        }
    }

    #[test]
    fn a_key_that_would_be_told_otherwise_is_refused_though_its_values_fit() {
        let key = |ty: ColumnType| schema(&[("id", ty)], &[0]);
        for (lake, source) in [
            (ColumnType::UInt64, ColumnType::Int64),
            (ColumnType::UInt64, decimal(18, 0)),
            (decimal(12, 4), decimal(10, 2)),
        ] {
            let (lake, source) = (key(lake), key(source));
            assert!(matches!(evolved(&lake, &source), Evolution::Refused(why) if why.contains("keys")), "{source:?}");
        }
        for (lake, source) in [(ColumnType::Int64, ColumnType::Int8), (decimal(14, 2), decimal(10, 2))] {
            assert_eq!(evolved(&key(lake), &key(source)), Evolution::None);
        }
    }

    #[test]
    fn a_schema_that_is_ahead_of_its_rows_stops_nothing() {
        let (lake, text) = (two(ColumnType::Int32), two(ColumnType::Text));
        let ahead = fit(&lake, &Absences::default(), &[(&text, Moment::Ahead)]).unwrap();
        assert!(!ahead.rewrites && ahead.schema == lake);
        assert!(fit(&lake, &Absences::default(), &[(&text, Moment::Load)]).is_err());
        // Added early with a later type: no row has used it, so that of the rows counts.
        let early = fit(&one(), &Absences::default(), &[(&text, Moment::Ahead)]).unwrap();
        let (bare, int) = (one(), two(ColumnType::Int32));
        let rows = [(&bare, Moment::Of(at(4))), (&int, Moment::Of(at(5)))];
        let typed = fit(&early.schema, &early.absences, &rows).unwrap();
        assert!(typed.rewrites && typed.schema == int);
        // With its own type nothing is rewritten, although rows without it come first.
        let rows = [(&bare, Moment::Of(at(4))), (&text, Moment::Of(at(5)))];
        assert!(!fit(&early.schema, &early.absences, &rows).unwrap().rewrites);
    }
}
