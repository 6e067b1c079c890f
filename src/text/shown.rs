//! Characters that a reader does not see, or that move other characters.

use std::borrow::Cow;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};

/// The longest run of marks that one letter carries. More of them cover the lines above and below.
const MOST_MARKS: u8 = 4;

/// Reads a text character by character, and knows the letter that a mark belongs to.
#[derive(Default)]
pub(super) struct Reader {
    /// The number of marks on the last letter. `None` if the last character carries none.
    marks: Option<u8>,
}

impl Reader {
    /// Returns whether a reader must not receive the next character as it is: controls, formats (which include the marks
    /// of direction), all spaces but the plain one, private and unassigned characters, characters without a glyph, and
    /// marks without a letter or in a heap.
    pub(super) fn hides(&mut self, character: char) -> bool {
        use GeneralCategory as C;
        if matches!(character, ' '..='~') {
            self.marks = character.is_ascii_alphanumeric().then_some(0);
            return false;
        }
        let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character);
        let carried = self.marks.take();
        match CodePointMapData::<GeneralCategory>::new().get(character) {
            _ if ignorable || is_blank(character) => true,
            C::Control | C::Format | C::Surrogate | C::PrivateUse | C::Unassigned => true,
            C::LineSeparator | C::ParagraphSeparator | C::SpaceSeparator | C::EnclosingMark => true,
            C::NonspacingMark | C::SpacingMark => {
                self.marks = carried.map(|marks| marks.saturating_add(1));
                carried.is_none_or(|marks| marks >= MOST_MARKS)
            }
            _ => {
                self.marks = character.is_alphanumeric().then_some(0);
                false
            }
        }
    }
}

/// Symbols whose glyph is empty: the blank Braille pattern and the empty note head.
const fn is_blank(character: char) -> bool {
    matches!(character, '\u{2800}' | '\u{1d159}')
}

/// Returns whether a person can take the character for a quotation mark.
pub(super) fn is_quotation_mark(character: char) -> bool {
    use GeneralCategory as C;
    let category = CodePointMapData::<GeneralCategory>::new();
    matches!(
        character,
        '"' | '„' | '‟' | '″' | '‶' | '〝' | '〞' | '〟' | '＂' | 'ˮ' | '⹂'
    ) || matches!(
        category.get(character),
        C::InitialPunctuation | C::FinalPunctuation
    )
}

/// Returns a whole text for people: each hidden character is escaped, as in `\u{1b}`.
///
/// bursar shows no text of a stranger without it. [`excerpt`](super::excerpt) also shortens.
///
/// ```
/// assert_eq!(bursar::text::visible("a\u{202e}b\n"), r"a\u{202e}b\u{a}");
/// ```
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |_, _| false, braced)
}

/// As [`visible`], for text of several lines: line ends and tabs stay.
///
/// ```
/// assert_eq!(bursar::text::visible_lines("a\u{1b}\r\n\tb\r"), "a\\u{1b}\r\n\tb\\u{d}");
/// ```
#[must_use]
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    let stays = |character, rest: &str| match character {
        '\n' | '\t' => true,
        '\r' => rest.starts_with('\n'),
        _ => false,
    };
    escaped(text, stays, braced)
}

/// Returns a value as JSON on one line. Each hidden character is escaped, as in `\u001b`, so a program reads the exact
/// text and a person receives nothing hidden.
///
/// # Errors
/// Returns the error of a value that cannot be written as JSON.
///
/// ```
/// assert_eq!(bursar::text::json(&"a\u{202e}b")?, r#""a\u202eb""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    // Raw JSON can have line ends between its members, and never inside a text.
    let units = |character: char, out: &mut String| match character {
        '\n' | '\r' | '\t' => out.push(' '),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    };
    Ok(match escaped(&json, |_, _| false, units) {
        Cow::Borrowed(_) => json,
        Cow::Owned(escaped) => escaped,
    })
}

/// Writes `\u{1b}`.
pub(super) fn braced(character: char, out: &mut String) {
    out.extend(character.escape_unicode());
}

/// Writes each hidden character with `write`, unless it `stays` before the rest of the text.
fn escaped(
    text: &str,
    stays: impl Fn(char, &str) -> bool,
    write: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.into();
    }
    let (mut reader, mut out) = (Reader::default(), String::with_capacity(text.len()));
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if reader.hides(character) && !stays(character, rest.as_str()) {
            write(character, &mut out);
        } else {
            out.push(character);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_hidden_character_is_escaped() {
        let hidden = [
            '\0',
            '\u{7}',
            '\u{1b}',
            '\r',
            '\n',
            '\t',
            '\u{7f}',
            '\u{85}',
            '\u{9b}', // controls
            '\u{61c}',
            '\u{200e}',
            '\u{200f}',
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}', // directions
            '\u{ad}',
            '\u{34f}',
            '\u{180b}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{2060}',
            '\u{2064}',
            '\u{206f}',
            '\u{feff}',
            '\u{fe0f}',
            '\u{fff9}',
            '\u{fffb}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e007f}',
            '\u{e0100}',
            '\u{115f}',
            '\u{1160}',
            '\u{3164}',
            '\u{ffa0}',
            '\u{17b4}',
            '\u{2800}',
            '\u{1d159}',
            '\u{2028}',
            '\u{2029}',
            '\u{a0}',
            '\u{2003}',
            '\u{3000}',
            '\u{1680}',
            '\u{202f}', // lines and spaces
            '\u{e000}',
            '\u{f8ff}',
            '\u{f0000}',
            '\u{10fffd}',
            '\u{378}',
            '\u{ffff}',
            '\u{1fffe}', // no characters
            '\u{20dd}',
            '\u{20e3}', // marks around a letter
        ];
        for character in hidden {
            let expected = format!("a{}b", character.escape_unicode());
            assert_eq!(visible(&format!("a{character}b")), expected);
        }
        for text in [
            "Preis: 5 €, naïve",
            "日本語 — 価格",
            "नमस्ते",
            "สวัสดีที่",
            "שָׁלוֹם",
            "مرحبا",
            "Tiếng Việt",
            "e\u{301}",
            "🦀 ok",
        ] {
            assert_eq!(visible(text), text);
        }
    }

    #[test]
    fn a_mark_needs_a_letter_and_a_heap_of_marks_is_escaped() {
        assert_eq!(visible("\u{338}a"), "\\u{338}a");
        assert_eq!(visible("\"\u{338}"), "\"\\u{338}");
        let heap = format!("a{}", "\u{301}".repeat(30));
        assert_eq!(visible(&heap).matches('\u{301}').count(), 4);
    }

    #[test]
    fn json_with_escapes_is_the_same_value_on_one_line() {
        let text = "a\u{1b}\u{7f}\u{9b}\u{202e}\u{e0041}\u{2028}\n\"";
        let written = json(&text).unwrap();
        assert!(written.is_ascii(), "{written}");
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        let raw = serde_json::value::RawValue::from_string("{\"a\":\n\t\"\u{200b}\"}".to_owned());
        assert_eq!(json(&raw.unwrap()).unwrap(), r#"{"a":  "\u200b"}"#);
    }
}
