//! Untrusted text, made safe to show.

mod query;
mod shown;

pub use query::without_query;
pub(crate) use query::{
    OwnQuery, current, guarded, guarding, guarding_again, guarding_secret, strike_json, struck,
    struck_path,
};
use shown::{Reader, braced};
pub use shown::{json, visible, visible_lines};

/// The length of the longest excerpt, in characters.
const EXCERPT: usize = 160;
/// The length of the longest path that is shown, in characters.
const PATH: usize = 120;
/// The number of bytes that an excerpt is made of, at most.
const READ: usize = 16 * 1024;
/// The longest run of hexadecimal digits that an excerpt shows. A hash fits, a signature does not.
/// Official facilitators quote whole signatures in their error messages.
const LONGEST_HEX: usize = 64;
/// The number of hexadecimal digits that one excerpt shows, in runs of eight digits and more. A hash
/// and an address fit, a signature in pieces does not.
const MOST_HEX: usize = 104;
const SHORT_HEX: usize = 8;
/// The longest run of letters and digits that an excerpt shows. A payment header does not fit.
const LONGEST_WORD: usize = 72;

/// Returns a text that a seller or another stranger wrote, in a form that is safe to show to a person or to log.
///
/// The result has at most 160 characters, and ends with `…` if the text is longer. Long hexadecimal
/// and long base64 are left out, because they may be a signature or a payment header. The query of the request that runs is
/// left out too. Control, bidirectional and other invisible characters are escaped, as [`visible`] does it.
///
/// ```
/// assert_eq!(bursar::text::excerpt("the weather\u{1b}[31m"), r"the weather\u{1b}[31m");
/// ```
#[must_use]
pub fn excerpt(text: &str) -> String {
    let start = text.get(..text.floor_char_boundary(READ));
    let text = struck(start.unwrap_or(text));
    if is_safe(&text) {
        text.into_owned()
    } else {
        long_excerpt(&text)
    }
}

/// Returns an excerpt in quotation marks. No character of the text looks like a closing mark.
///
/// ```
/// assert_eq!(bursar::text::quoted("so \"cheap\""), r#""so 'cheap'""#);
/// ```
#[must_use]
pub fn quoted(text: &str) -> String {
    let inside = |character| {
        if shown::is_quotation_mark(character) {
            '\''
        } else {
            character
        }
    };
    format!(
        "\"{}\"",
        excerpt(text).chars().map(inside).collect::<String>()
    )
}

/// Returns the beginning of a path, for people. After a redirect, the seller chose it.
pub(crate) fn shown_path(path: &str) -> String {
    beginning(&visible(&struck_path(path)), PATH)
}

/// Returns a text that is not a host or an origin, for an error: without the password and the query of a URL.
pub(crate) fn shown_place(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let (place, rest) = text.split_at(end);
    // A password can have a question mark.
    let last = if rest.contains('@') { "" } else { place };
    let shown = last.rsplit('@').next().unwrap_or_default();
    let is_cut = shown.len() < text.len();
    format!("{}{}", excerpt(shown), if is_cut { "…" } else { "" })
}

/// Returns a short text of bursar and of the operator. The query of the request is not struck from it, because a
/// model that chooses the URL could then hide an amount.
pub(crate) fn own_text(text: &str) -> String {
    beginning(&visible(text), EXCERPT)
}

/// Returns the beginning of a text, with the number of characters that are left out.
fn beginning(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => {
            let (shown, rest) = text.split_at(end);
            format!("{shown}… ({} characters more)", rest.chars().count())
        }
        None => text.to_owned(),
    }
}

/// Returns the text of the innermost cause of an error, without a URL, which may hold a key.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    let text = root.to_string();
    excerpt(text.split(" for url (").next().unwrap_or_default())
}

fn long_excerpt(text: &str) -> String {
    let mut shown = String::new();
    let mut room = EXCERPT;
    let mut hex = MOST_HEX;
    let mut reader = Reader::default();
    for piece in pieces(text) {
        let visible = escaped(piece, &mut reader);
        let piece = if is_hex(piece) {
            masked(piece, &mut hex).to_owned()
        } else {
            visible
        };
        let Some(left) = room.checked_sub(piece.chars().count()) else {
            shown.push('…');
            break;
        };
        room = left;
        shown.push_str(&piece);
    }
    shown
}

/// Returns whether `text` is its own excerpt, in one pass. Most texts of sellers are.
fn is_safe(text: &str) -> bool {
    let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    // A word or digits that are too many do not fit into a short text, except for the longest run.
    if text.len() <= LONGEST_WORD {
        return text.bytes().all(printable) && !has_long_hex(text.as_bytes());
    }
    let (mut word, mut digits, mut hex) = (0_usize, 0_usize, 0_usize);
    text.len() <= EXCERPT
        && text.bytes().all(|byte| {
            word = if is_of_word(byte) {
                word.saturating_add(1)
            } else {
                0
            };
            digits = if byte.is_ascii_hexdigit() {
                digits.saturating_add(1)
            } else {
                0
            };
            hex = match digits {
                SHORT_HEX => hex.saturating_add(SHORT_HEX),
                digits if digits > SHORT_HEX => hex.saturating_add(1),
                _ => hex,
            };
            printable(byte) && word <= LONGEST_WORD && digits <= LONGEST_HEX && hex <= MOST_HEX
        })
}

const fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'_' | b'-' | b'=')
}

/// Returns the text without runs of hexadecimal digits that can hold a signature.
pub(crate) fn without_long_hex(text: String) -> String {
    let is_digit = |character: char| character.is_ascii_hexdigit();
    let is_long = |run: &str| run.len() > LONGEST_HEX && run.starts_with(is_digit);
    if !has_long_hex(text.as_bytes()) {
        return text;
    }
    runs(&text, is_digit)
        .map(|run| if is_long(run) { "[hex]" } else { run })
        .collect()
}

/// Returns whether the text has a run of more than [`LONGEST_HEX`] hexadecimal digits. Such a run covers one of the
/// positions that are looked at.
fn has_long_hex(text: &[u8]) -> bool {
    let step = LONGEST_HEX.saturating_add(1);
    let is_digit = |byte: &&u8| byte.is_ascii_hexdigit();
    (LONGEST_HEX..text.len()).step_by(step).any(|place| {
        let (before, after) = text.split_at(place);
        let left = before.iter().rev().take_while(is_digit).count();
        let right = after.iter().take_while(is_digit).count();
        right > 0 && left.saturating_add(right) > LONGEST_HEX
    })
}

/// Splits the text into the longest pieces whose characters all satisfy `kind`, or all do not.
fn runs(text: &str, kind: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = kind(rest.chars().next()?);
        let end = rest
            .find(|character| kind(character) != first)
            .unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(run)
    })
}

/// Splits the text into runs of hexadecimal digits, words that are too long, and single characters.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let run =
            |of: fn(char) -> bool| rest.find(|character| !of(character)).unwrap_or(rest.len());
        let word = run(|character| u8::try_from(character).is_ok_and(is_of_word));
        let digits = run(|character| character.is_ascii_hexdigit());
        let end = match (word, digits) {
            _ if rest.starts_with("0x") => 2,
            (word, digits) if word > LONGEST_WORD && digits < word => word,
            (_, digits) if digits > 0 => digits,
            _ => first.len_utf8(),
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

fn is_hex(piece: &str) -> bool {
    piece.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the digits if they fit into the budget, else a placeholder.
fn masked<'a>(digits: &'a str, budget: &mut usize) -> &'a str {
    if digits.len() < SHORT_HEX {
        return digits;
    }
    match budget
        .checked_sub(digits.len())
        .filter(|_| digits.len() <= LONGEST_HEX)
    {
        Some(left) => {
            *budget = left;
            digits
        }
        None => "[hex]",
    }
}

fn escaped(piece: &str, reader: &mut Reader) -> String {
    let mut safe = String::new();
    for character in piece.chars() {
        if reader.hides(character) {
            braced(character, &mut safe);
        } else {
            safe.push(character);
        }
    }
    if piece.len() > LONGEST_WORD {
        return "[word]".to_owned();
    }
    safe
}

/// Returns the name that is closest to the one that was written, if one is close.
pub(crate) fn closest<'n>(
    written: &str,
    names: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    /// Longer names are not compared: the time of a comparison grows with the square of the length.
    const LONGEST: usize = 64;
    if written.len() > LONGEST {
        return None;
    }
    let written = written.to_ascii_lowercase();
    let distances = names.into_iter().map(|name| {
        let distance = strsim::damerau_levenshtein(&written, &name.to_ascii_lowercase());
        (distance, name)
    });
    // A third of the letters may be wrong.
    let near = distances.filter(|(distance, name)| {
        let longer = written.chars().count().max(name.chars().count());
        distance.saturating_mul(3) <= longer
    });
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_and_long_text_is_safed() {
        assert_eq!(excerpt("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        for long in [
            "x ".repeat(250),
            format!("{}{}", "x ".repeat(79), "ab".repeat(32)),
            "\u{1b}".repeat(160),
        ] {
            assert!(excerpt(&long).chars().count() <= EXCERPT + 1, "{long}");
            assert!(excerpt(&long).ends_with('…'), "{long}");
        }
    }

    /// A short text is judged by its longest run of digits alone, and a long one by each character.
    #[test]
    fn a_text_of_any_length_is_safe_if_its_long_form_shows_it_as_it_is() {
        for length in 0..=EXCERPT + 1 {
            for start in [0, 1, 7, length / 2] {
                for unit in ["a", "Z", "0a", "x ", "\t"] {
                    let text = format!("{}{}", " ".repeat(start), unit.repeat(length));
                    assert_eq!(is_safe(&text), long_excerpt(&text) == text, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn a_quotation_cannot_be_closed_from_inside() {
        for mark in ["\"", "”", "＂", "«", "\u{2e42}\u{202e}\""] {
            let shown = quoted(&format!("a{mark} because: approved"));
            let inside = &shown[1..shown.len() - 1];
            assert!(
                !inside.contains(['"', '”', '＂', '«', '\u{202e}']),
                "{shown}"
            );
        }
        assert_eq!(shown_path("/ab\u{7}"), "/ab\\u{7}");
        assert_eq!(beginning("/abcdef", 4), "/abc… (3 characters more)");
    }

    /// The fast path and the slow path agree.
    #[test]
    fn what_is_safe_is_shown_as_it_is() {
        let digits = |count: usize| {
            "0123456789abcdef"
                .chars()
                .cycle()
                .take(count)
                .collect::<String>()
        };
        let words = |count: usize| "x_-=+Z".chars().cycle().take(count).collect::<String>();
        let mut texts = vec![
            "\u{e9}".to_owned(),
            "\t".to_owned(),
            " ~ plain. ".to_owned(),
            "x ".repeat(80),
            "x ".repeat(81),
        ];
        for count in [1, 7, 8, 9, 40, 63, 64, 65, 71, 72, 73, 104, 105] {
            texts.extend([
                digits(count),
                words(count),
                format!("0x{}", digits(count)),
                format!("{} z", digits(count)),
            ]);
            texts.push(format!("{} {}", digits(count), digits(40)));
        }
        let mut safe = 0;
        for text in texts {
            let shown: String = long_excerpt(&text);
            assert_eq!(
                is_safe(&text),
                shown == text && text.is_ascii(),
                "{text:?}: {shown:?}"
            );
            safe += usize::from(is_safe(&text));
        }
        assert!(safe > 20, "{safe}");
    }

    #[test]
    fn a_long_run_of_digits_is_found_at_every_place() {
        for before in 0..140 {
            for (length, long) in [(64, false), (65, true), (130, true)] {
                let run = format!(
                    "{}{}{}",
                    "x".repeat(before),
                    "a".repeat(length),
                    "y".repeat(80)
                );
                assert_eq!(has_long_hex(run.as_bytes()), long, "{before}, {length}");
                let end = &run[..before + length];
                assert_eq!(has_long_hex(end.as_bytes()), long, "{before}, {length}");
            }
        }
    }

    #[test]
    fn signatures_are_masked_and_hashes_are_shown() {
        let hash = "ab".repeat(32);
        let signature = "cd".repeat(65);
        assert_eq!(
            excerpt(&format!("tx 0x{hash} by 0x{signature}.")),
            format!("tx 0x{hash} by 0x[hex].")
        );
        let (address, half) = ("ef".repeat(20), "cd".repeat(32));
        assert_eq!(
            excerpt(&format!("{hash} {address}")),
            format!("{hash} {address}")
        );
        assert_eq!(
            excerpt(&format!("{half} {half} 1b")),
            format!("{half} [hex] 1b"),
            "in two"
        );
        let pieces = ["cdcdcdcdcdcdcdcd"; 8].join(" ");
        assert_eq!(excerpt(&pieces).matches("[hex]").count(), 2, "in eight");
        assert_eq!(
            excerpt(&format!("x={}", "eyJ4NDAyVmVy".repeat(9))),
            "[word]",
            "a payment header"
        );
        assert_eq!(
            without_long_hex(format!("{hash} {hash} 0x{signature}")),
            format!("{hash} {hash} 0x[hex]")
        );
        assert_eq!(
            without_long_hex(format!("{{\"paid\":\"x{signature}z\"}}")),
            "{\"paid\":\"x[hex]z\"}",
            "in a word"
        );
    }

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let names = ["rolling", "calendar", "lifetime"];
        for (written, expected) in [
            ("roling", Some("rolling")),
            ("Calender", Some("calendar")),
            ("lifetmie", Some("lifetime")),
            ("exposure", None),
            ("", None),
        ] {
            assert_eq!(closest(written, names), expected, "{written}");
        }
        assert_eq!(closest(&"x".repeat(65), ["x"]), None);
    }
}
