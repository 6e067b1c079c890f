//! Statements and rows of PostgreSQL.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::ledger::sql::query::Query;
use crate::ledger::sql::{self, Cell, Value};

/// A statement in the SQL of PostgreSQL, with its values.
pub(super) struct Statement {
    pub(super) text: Cow<'static, str>,
    pub(super) values: Vec<Parameter>,
}

impl From<Query> for Statement {
    fn from(query: Query) -> Self {
        Self {
            text: numbered(&query.sql).into(),
            values: query.values.into_iter().map(Parameter::One).collect(),
        }
    }
}

/// A value of a statement, or the values of a column for many rows.
pub(super) enum Parameter {
    One(Value),
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

impl Parameter {
    /// Returns the type, for a statement that is not prepared. The server finds the type of a null.
    pub(super) const fn kind(&self) -> Type {
        match self {
            Self::One(Value::Null) => Type::UNKNOWN,
            Self::One(Value::Integer(_)) => Type::INT8,
            Self::One(Value::Text(_)) => Type::TEXT,
            Self::Integers(_) => Type::INT8_ARRAY,
            Self::Texts(_) => Type::TEXT_ARRAY,
        }
    }
}

/// Shows no text, because drivers log the values of their statements.
impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(value) => value.fmt(f),
            Self::Integers(values) => write!(f, "{} integers", values.len()),
            Self::Texts(values) => write!(f, "{} texts", values.len()),
        }
    }
}

/// Replaces the first `?` by `$1`, and so on. The queries contain no other `?`.
fn numbered(sql: &str) -> String {
    let mut parts = sql.split('?');
    let first = parts.next().unwrap_or_default().to_owned();
    parts
        .zip(1_usize..)
        .fold(first, |sql, (part, number)| format!("{sql}${number}{part}"))
}

impl sql::Row for Row {
    fn cell(&self, column: &str) -> Option<Cell<'_>> {
        let found = self
            .columns()
            .iter()
            .position(|known| known.name() == column)?;
        match *self.columns().get(found)?.type_() {
            Type::INT8 => Some(
                self.try_get::<_, Option<i64>>(found)
                    .ok()?
                    .map_or(Cell::Null, Cell::Integer),
            ),
            Type::TEXT => Some(
                self.try_get::<_, Option<&str>>(found)
                    .ok()?
                    .map_or(Cell::Null, Cell::Text),
            ),
            _ => None,
        }
    }
}

impl ToSql for Parameter {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::One(Value::Null) => Ok(IsNull::Yes),
            Self::One(Value::Integer(number)) => number.to_sql_checked(kind, out),
            Self::One(Value::Text(text)) => text.to_sql_checked(kind, out),
            Self::Integers(numbers) => numbers.to_sql_checked(kind, out),
            Self::Texts(texts) => texts.to_sql_checked(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [
            Type::INT8,
            Type::TEXT,
            Type::INT8_ARRAY,
            Type::TEXT_ARRAY,
            Type::UNKNOWN,
        ]
        .contains(kind)
    }

    to_sql_checked!();
}
