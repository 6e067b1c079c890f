//! Pages of lists: their items and the position of the next page.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::listing::Listing;
use crate::error::{Error, ErrorKind};
use crate::text;

/// The number of items of a page that bursar reads.
const MAX_ITEMS: usize = 1000;
/// The length of the longest item, in bytes.
const MAX_ITEM: usize = 64 * 1024;
/// The number of reasons that bursar keeps for skipped items.
const MAX_REASONS: usize = 8;

/// The items of a source that bursar could not use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The number of items.
    pub count: usize,
    /// The first eight different reasons: untrusted text, each cut to 160 characters.
    pub reasons: Vec<String>,
}

impl Skipped {
    pub(super) fn add(&mut self, reason: &str) {
        self.count = self.count.saturating_add(1);
        self.keep(text::excerpt(reason));
    }

    pub(super) fn extend(&mut self, more: Self) {
        self.count = self.count.saturating_add(more.count);
        more.reasons
            .into_iter()
            .for_each(|reason| self.keep(reason));
    }

    fn keep(&mut self, reason: String) {
        if self.reasons.len() < MAX_REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

/// The contents of one page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) listings: Vec<Listing>,
    pub(crate) skipped: Skipped,
    /// The number of items, including skipped ones.
    pub(crate) items: usize,
    pub(super) next: Next,
    /// The hash of the items. A list that returns the same page again has ended.
    pub(super) digest: u64,
}

/// The position of the next page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Next {
    #[default]
    End,
    /// The list has this many items in total.
    Total(u64),
    Cursor(String),
}

impl Next {
    /// Returns the position after a cursor, or the end if there is no cursor.
    pub(super) fn cursor(cursor: Option<&str>) -> Self {
        match cursor {
            Some(cursor) if !cursor.is_empty() => Self::Cursor(cursor.to_owned()),
            _ => Self::End,
        }
    }
}

impl Page {
    /// Creates a page from its items. `read` returns the reason if it cannot read one.
    pub(super) fn of(
        items: Capped<Box<RawValue>>,
        read: impl Fn(&Value) -> Result<Vec<Listing>, String>,
    ) -> Self {
        let mut page = Self {
            items: items.seen,
            ..Self::default()
        };
        let mut digest = DefaultHasher::new();
        for raw in &items.kept {
            raw.get().hash(&mut digest);
            match item(raw).and_then(|item| read(&item)) {
                Ok(listings) => page.listings.extend(listings),
                Err(reason) => page.skipped.add(&reason),
            }
        }
        let ignored = items.seen.saturating_sub(items.kept.len());
        if ignored > 0 {
            page.skipped.add(&format!(
                "a page's items after the first {MAX_ITEMS} are not read"
            ));
            page.skipped.count = page.skipped.count.saturating_add(ignored).saturating_sub(1);
        }
        page.digest = digest.finish();
        page
    }
}

/// Parses an item, unless it is too long.
pub(super) fn item(raw: &RawValue) -> Result<Value, String> {
    let length = raw.get().len();
    if length > MAX_ITEM {
        return Err(format!("an item is longer than {MAX_ITEM} bytes"));
    }
    serde_json::from_str(raw.get()).map_err(|error| format!("an item cannot be read: {error}"))
}

/// Parses a page as JSON. `expected` describes it in the error.
pub(super) fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8], expected: &str) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = format!(
            "the answer is not {expected}: {}",
            text::excerpt(&error.to_string())
        );
        Error::new(ErrorKind::Malformed, message)
    })
}

/// The first thousand elements of a list.
///
/// Further elements are counted and dropped, so that many small items need little memory.
#[derive(Debug)]
pub(super) struct Capped<T> {
    pub(super) kept: Vec<T>,
    pub(super) seen: usize,
}

impl<T> Default for Capped<T> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            seen: 0,
        }
    }
}

struct CappedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for CappedVisitor<T> {
    type Value = Capped<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Capped<T>, A::Error> {
        let mut capped = Capped::default();
        while capped.kept.len() < MAX_ITEMS {
            match seq.next_element()? {
                Some(element) => capped.kept.push(element),
                None => break,
            }
        }
        capped.seen = capped.kept.len();
        if capped.seen == MAX_ITEMS {
            while seq.next_element::<IgnoredAny>()?.is_some() {
                capped.seen = capped.seen.saturating_add(1);
            }
        }
        Ok(capped)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Capped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(CappedVisitor(PhantomData))
    }
}

/// The first thousand entries of an object, as in [`Capped`].
#[derive(Debug, Default)]
pub(super) struct CappedMap(pub(super) Capped<(String, Box<RawValue>)>);

struct MapVisitor;

impl<'de> Visitor<'de> for MapVisitor {
    type Value = CappedMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CappedMap, A::Error> {
        let mut capped = Capped::default();
        while capped.kept.len() < MAX_ITEMS {
            match map.next_entry()? {
                Some(entry) => capped.kept.push(entry),
                None => break,
            }
        }
        capped.seen = capped.kept.len();
        if capped.seen == MAX_ITEMS {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                capped.seen = capped.seen.saturating_add(1);
            }
        }
        Ok(CappedMap(capped))
    }
}

impl<'de> Deserialize<'de> for CappedMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MapVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_after_the_first_thousand_are_counted_and_dropped() {
        let many = format!("[{}1]", "1,".repeat(99_999));
        let capped: Capped<Box<RawValue>> = serde_json::from_str(&many).unwrap();
        assert_eq!((capped.kept.len(), capped.seen), (MAX_ITEMS, 100_000));
        let page = Page::of(capped, |_| Err("no".to_owned()));
        assert_eq!(
            (page.items, page.skipped.count, page.skipped.reasons.len()),
            (100_000, 100_000, 2)
        );
    }

    #[test]
    fn reasons_are_few_and_short() {
        let mut skipped = Skipped::default();
        (0..100).for_each(|number| skipped.add(&format!("{number} {}", "x ".repeat(500))));
        assert_eq!((skipped.count, skipped.reasons.len()), (100, MAX_REASONS));
        assert!(
            skipped
                .reasons
                .iter()
                .all(|reason| reason.chars().count() <= 161)
        );
    }
}
