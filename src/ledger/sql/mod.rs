//! The parts that all SQL databases share: rows, tables and queries.

pub(super) mod denials;
#[cfg(feature = "sqlite")]
pub(super) mod hosts;
pub(super) mod query;
pub(super) mod row;
pub(super) mod scope;
pub(super) mod tables;

use std::fmt;

/// A value to write.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Text(String),
}

/// Shows no text. Drivers log the values of their statements, and a text can be a payment header.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => write!(f, "text({} bytes)", text.len()),
        }
    }
}

/// A value from a row.
#[derive(Clone, Copy)]
pub(super) enum Cell<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
}

/// A row of any database.
pub(super) trait Row {
    /// Returns the value of a column, or `None` if it is missing or has a type that bursar does not
    /// write.
    fn cell(&self, column: &str) -> Option<Cell<'_>>;
}

macro_rules! integers {
    ($($kind:ty)*) => {$(
        impl From<$kind> for Value {
            fn from(number: $kind) -> Self {
                Self::Integer(number.into())
            }
        }
    )*};
}

integers! { i64 u32 u16 u8 }

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<Cell<'_>> for Value {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Integer(number) => Self::Integer(number),
            Cell::Text(text) => Self::Text(text.to_owned()),
        }
    }
}
