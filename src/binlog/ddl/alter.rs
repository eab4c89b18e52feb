//! The actions of ALTER TABLE.

use super::tokens::{Statement, Token, is_keyword};
use super::{AlterTable, StatementKind};

/// Behind `ALTER TABLE`.
pub(super) fn alter_table(statement: &mut Statement<'_>) -> Option<StatementKind> {
    statement.eat_all(&["IF", "EXISTS"]);
    let mut alter = AlterTable::unchanged(statement.table()?);
    statement.eat_wait()?;
    while let Some(tokens) = statement.next_action() {
        action(&mut alter, statement.of_action(tokens))?;
    }
    Some(StatementKind::AlterTable(alter))
}

/// `None` if the action is one that must be understood and isn't.
fn action(alter: &mut AlterTable, mut action: Statement<'_>) -> Option<()> {
    let Some(Token::Word(verb)) = action.skip() else {
        return None;
    };
    match verb.to_ascii_uppercase().as_str() {
        "ADD" => alter.adds_default |= added(action)?,
        "RENAME" => rename(alter, action)?,
        "CHANGE" => {
            alter.changes_columns = true;
            action.eat("COLUMN");
            action.eat_all(&["IF", "EXISTS"]);
            alter.drops_columns.extend(renamed(action));
        }
        "MODIFY" | "CONVERT" => alter.changes_columns = true,
        // ALTER [COLUMN] changes defaults and visibility of columns, indexes and checks: rows that exist stay as they are.
        "ALTER" => {}
        "DROP" if action.eat("COLUMN") => {
            action.eat_all(&["IF", "EXISTS"]);
            alter.drops_columns.push(action.name()?);
        }
        "DROP" | "TRUNCATE" if action.eat("PARTITION") => alter.moves_rows = true,
        "DROP" if action.eat_all(&["IF", "EXISTS"]) => alter.drops_columns.push(action.name()?),
        "DROP" if !NO_COLUMN.iter().any(|keyword| action.eat(keyword)) => alter.drops_columns.push(action.name()?),
        "DROP" | "TRUNCATE" => {}
        "DISCARD" | "IMPORT" => alter.moves_rows = true,
        "EXCHANGE" => {
            alter.moves_rows = true;
            while !action.eat("WITH") {
                action.skip()?;
            }
            action.eat("TABLE");
            alter.exchanged_with = Some(action.table()?);
        }
        // Behind these, commas divide partition names and the like; nothing else of them matters.
        _ => {}
    }
    Some(())
}

/// The name that a column has no more: `CHANGE` may leave it as it is.
fn renamed(mut action: Statement<'_>) -> Option<String> {
    let (from, to) = (action.name()?, action.name()?);
    (!from.eq_ignore_ascii_case(&to)).then_some(from)
}

fn rename(alter: &mut AlterTable, mut action: Statement<'_>) -> Option<()> {
    if action.eat("COLUMN") {
        // The lake gets the new name as a column of its own, whose rows must be filled.
        alter.changes_columns = true;
        action.eat_all(&["IF", "EXISTS"]);
        let from = action.name()?;
        if action.eat("TO") && action.name().is_some_and(|to| !to.eq_ignore_ascii_case(&from)) {
            alter.drops_columns.push(from);
        }
        return Some(());
    }
    if action.eat("INDEX") || action.eat("KEY") {
        return Some(());
    }
    let _ = action.eat("TO") || action.eat("AS") || action.eat_symbol('=');
    alter.renamed_to = Some(action.table()?);
    Some(())
}

/// What ADD and DROP are followed by unless it is a column's name.
const NO_COLUMN: [&str; 10] =
    ["INDEX", "KEY", "UNIQUE", "PRIMARY", "FULLTEXT", "SPATIAL", "FOREIGN", "CONSTRAINT", "CHECK", "PARTITION"];

/// Whether the columns that ADD adds, if it adds any, hold something else than NULL in the rows that exist.
fn added(mut action: Statement<'_>) -> Option<bool> {
    let named_column = action.eat("COLUMN");
    if !named_column && NO_COLUMN.iter().any(|keyword| action.eat(keyword)) {
        return Some(false);
    }
    if action.eat_all(&["IF", "NOT", "EXISTS"]) || !action.eat_symbol('(') {
        action.name()?;
        return Some(is_filled(&action.rest()));
    }
    let mut tokens = action.rest();
    if tokens.pop() != Some(Token::Symbol(')')) {
        return None;
    }
    Some(definitions(tokens).any(|definition| match definition.split_first() {
        Some((Token::Word(word), _)) if NO_COLUMN.iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) => false,
        Some((_, rest)) => is_filled(rest),
        None => false,
    }))
}

/// Divides the definitions between the parentheses of `ADD (…, …)`.
fn definitions(tokens: Vec<Token>) -> impl Iterator<Item = Vec<Token>> {
    let mut depth = 0_usize;
    let mut found = vec![Vec::new()];
    for token in tokens {
        match token {
            Token::Symbol(',') if depth == 0 => {
                found.push(Vec::new());
                continue;
            }
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        found.last_mut().expect("it begins with one").push(token);
    }
    found.into_iter()
}

/// Whether a column defined so (type and attributes) is filled by the server in rows that exist.
fn is_filled(definition: &[Token]) -> bool {
    let mut depth = 0_usize;
    let top_level: Vec<&Token> = definition
        .iter()
        .filter(|token| {
            match token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0
        })
        .collect();
    let follows = |first: &str, second: &str| {
        top_level.windows(2).any(|pair| is_keyword(pair[0], first) && is_keyword(pair[1], second))
    };
    let has = |keyword: &str| top_level.iter().any(|token| is_keyword(token, keyword));
    // TIMESTAMP without NULL is NOT NULL if explicit_defaults_for_timestamp is off.
    let implicit_timestamp = top_level.first().is_some_and(|ty| is_keyword(ty, "TIMESTAMP")) && !has("NULL");
    implicit_timestamp
        || follows("NOT", "NULL")
        || has("DEFAULT") && !follows("DEFAULT", "NULL")
        || has("AS")
        || has("AUTO_INCREMENT")
        || has("SERIAL")
        || has("PRIMARY")
}
