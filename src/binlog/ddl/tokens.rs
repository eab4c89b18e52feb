//! A statement as words, names and symbols, without comments and white space.

use std::iter::Peekable;
use std::str::CharIndices;
use std::vec;

use weir_model::TableId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword or a bare name.
    Word(String),
    /// A name between backticks or, in ANSI mode, double quotes; elsewhere double quotes hold text.
    Quoted(String),
    /// Text between single quotes, whose contents matter to nobody here.
    Text,
    Symbol(char),
}

/// A statement that is read from its head on.
pub(super) struct Statement<'a> {
    default_database: &'a str,
    tokens: Peekable<vec::IntoIter<Token>>,
}

impl<'a> Statement<'a> {
    /// `None` if a quote or comment has no end.
    pub(super) fn read(default_database: &'a str, sql: &str) -> Option<Self> {
        Some(Self { default_database, tokens: tokens(sql)?.into_iter().peekable() })
    }

    /// The next word in upper case.
    pub(super) fn keyword(&mut self) -> Option<String> {
        match self.tokens.next()? {
            Token::Word(word) => Some(word.to_ascii_uppercase()),
            _ => None,
        }
    }

    /// Skips the next token if it is this keyword.
    pub(super) fn eat(&mut self, keyword: &str) -> bool {
        self.tokens.next_if(|token| is_keyword(token, keyword)).is_some()
    }

    /// Skips these keywords if the first one is next; they only occur together.
    pub(super) fn eat_all(&mut self, keywords: &[&str]) -> bool {
        let [first, rest @ ..] = keywords else { return false };
        self.eat(first) && rest.iter().all(|keyword| self.eat(keyword))
    }

    /// Skips `WAIT seconds` or `NOWAIT`, which MariaDB has behind names of tables; `None` if the seconds are missing.
    pub(super) fn eat_wait(&mut self) -> Option<()> {
        if self.eat("WAIT") {
            self.skip()?;
        } else {
            self.eat("NOWAIT");
        }
        Some(())
    }

    pub(super) fn eat_symbol(&mut self, symbol: char) -> bool {
        self.tokens.next_if_eq(&Token::Symbol(symbol)).is_some()
    }

    pub(super) fn skip(&mut self) -> Option<Token> {
        self.tokens.next()
    }

    /// A name, quoted or bare.
    pub(super) fn name(&mut self) -> Option<String> {
        match self.tokens.next()? {
            Token::Word(name) | Token::Quoted(name) => Some(name),
            _ => None,
        }
    }

    /// `table` or `database.table`.
    pub(super) fn table(&mut self) -> Option<TableId> {
        let first = self.name()?;
        let id = if self.eat_symbol('.') {
            TableId::new(&first, &self.name()?)
        } else {
            TableId::new(self.default_database, &first)
        };
        (!id.database.is_empty()).then_some(id)
    }

    /// The tokens up to the next comma outside of parentheses, which is skipped; `None` behind the last.
    pub(super) fn next_action(&mut self) -> Option<Vec<Token>> {
        self.tokens.peek()?;
        let mut depth = 0_usize;
        let mut action = Vec::new();
        for token in self.tokens.by_ref() {
            match token {
                Token::Symbol(',') if depth == 0 => break,
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            action.push(token);
        }
        Some(action)
    }

    /// Goes on with one action's tokens only.
    pub(super) fn of_action(&self, action: Vec<Token>) -> Statement<'a> {
        Statement { default_database: self.default_database, tokens: action.into_iter().peekable() }
    }

    pub(super) fn rest(self) -> Vec<Token> {
        self.tokens.collect()
    }
}

pub(super) fn is_keyword(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
}

/// Divides `sql`. The contents of executable comments (`/*!50100 … */`) count as if they stood outside.
fn tokens(sql: &str) -> Option<Vec<Token>> {
    let mut found = Vec::new();
    let mut chars = sql.char_indices().peekable();
    let mut in_executable = false;
    while let Some((at, c)) = chars.next() {
        let rest = &sql[at..];
        match c {
            c if c.is_whitespace() => {}
            '#' => skip_line(&mut chars),
            '-' if rest.starts_with("--") && rest[2..].chars().next().is_none_or(char::is_whitespace) => {
                skip_line(&mut chars);
            }
            '/' if executes(rest) => {
                skip_past(&mut chars, at + "/*!".len());
                while chars.next_if(|(_, c)| c.is_ascii_digit()).is_some() {}
                in_executable = true;
            }
            '*' if in_executable && rest.starts_with("*/") => {
                chars.next();
                in_executable = false;
            }
            '/' if rest.starts_with("/*") => {
                let end = at + "/*".len() + rest["/*".len()..].find("*/")? + "*/".len();
                skip_past(&mut chars, end);
            }
            '`' => found.push(Token::Quoted(quoted(&mut chars, '`', false)?)),
            '"' => found.push(Token::Quoted(quoted(&mut chars, '"', true)?)),
            '\'' => {
                quoted(&mut chars, '\'', true)?;
                found.push(Token::Text);
            }
            c if is_name_char(c) => {
                let mut word = String::from(c);
                while let Some((_, c)) = chars.next_if(|&(_, c)| is_name_char(c)) {
                    word.push(c);
                }
                found.push(Token::Word(word));
            }
            ';' => {}
            c => found.push(Token::Symbol(c)),
        }
    }
    Some(found)
}

/// Characters of names that need no quotes (MySQL manual, "Schema Object Names").
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || c >= '\u{80}'
}

/// Whether `rest` begins with a comment whose contents the server carries out. A version in it that lies beyond every
/// server (99999), or is MariaDB's (from 100000 on), hides the contents.
fn executes(rest: &str) -> bool {
    let Some(inner) = rest.strip_prefix("/*!") else {
        return false;
    };
    let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
    digits == 0 || inner[..digits].parse().is_ok_and(|version: u64| version < 99_999)
}

fn skip_line(chars: &mut Peekable<CharIndices<'_>>) {
    while chars.next_if(|&(_, c)| c != '\n').is_some() {}
}

fn skip_past(chars: &mut Peekable<CharIndices<'_>>, end: usize) {
    while chars.next_if(|&(at, _)| at < end).is_some() {}
}

/// What stands up to the closing quote; a doubled quote stands for one.
fn quoted(chars: &mut Peekable<CharIndices<'_>>, quote: char, backslashes: bool) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()?.1 {
            c if c == quote => {
                if chars.next_if(|&(_, c)| c == quote).is_none() {
                    return Some(text);
                }
                text.push(quote);
            }
            '\\' if backslashes => text.push(chars.next()?.1),
            c => text.push(c),
        }
    }
}
