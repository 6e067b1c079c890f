//! Text from strangers, made safe to show.

/// Longest excerpt of foreign text that an error or a prompt repeats, in characters.
const EXCERPT: usize = 160;
/// Hexadecimal runs up to this length are shown: a hash or a nonce, but no signature and no key
/// material beyond it. Official facilitators quote whole signatures in their error messages.
const LONGEST_HEX: usize = 64;

/// At most 160 characters for `text`, and `…` where it is longer, with long hexadecimal runs left
/// out and control, bidirectional and other invisible characters escaped, so that it can neither
/// leak a signature, nor flood a log, nor repaint a terminal.
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown = String::new();
    let mut room = EXCERPT;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let mut piece = String::new();
        if character.is_ascii_hexdigit() {
            piece.push(character);
            while let Some(digit) = characters.next_if(char::is_ascii_hexdigit) {
                piece.push(digit);
            }
            if piece.len() > LONGEST_HEX {
                piece = "[hex]".to_owned();
            }
        } else if character.is_control() || is_invisible(character) {
            piece.extend(character.escape_unicode());
        } else {
            piece.push(character);
        }
        let Some(left) = room.checked_sub(piece.chars().count()) else {
            shown.push('…');
            break;
        };
        room = left;
        shown.push_str(&piece);
    }
    shown
}

/// The text with long hexadecimal runs left out, at whatever length.
pub(crate) fn without_long_hex(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|character: char| character.is_ascii_hexdigit()) {
        let (before, run) = rest.split_at(start);
        let end = run.find(|character: char| !character.is_ascii_hexdigit()).unwrap_or(run.len());
        let (run, after) = run.split_at(end);
        shown.push_str(before);
        shown.push_str(if run.len() > LONGEST_HEX { "[hex]" } else { run });
        rest = after;
    }
    shown.push_str(rest);
    shown
}

const fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_and_long_text_is_tamed() {
        assert_eq!(excerpt("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        for long in ["x".repeat(500), format!("{}{}", "x".repeat(159), "ab".repeat(32)), "\u{1b}".repeat(160)] {
            assert!(excerpt(&long).chars().count() <= EXCERPT + 1, "{long}");
            assert!(excerpt(&long).ends_with('…'), "{long}");
        }
    }

    #[test]
    fn signatures_are_left_out_and_hashes_are_not() {
        let hash = "ab".repeat(32);
        let signature = "cd".repeat(65);
        assert_eq!(excerpt(&format!("tx 0x{hash} by 0x{signature}.")), format!("tx 0x{hash} by 0x[hex]."));
    }
}
