//! The names of tools as a host sees them.

use std::collections::HashSet;

/// The longest name. Many hosts allow 64 characters, and some put the name of the server before it.
const LONGEST: usize = 60;
/// The length of the hash at the end of a name.
const HASH: usize = 8;

/// Returns a name for each tool of a server, in the same order. `None` is a tool that is listed a second time.
///
/// A name that a host can show as it is stays, and comes first. Other characters than letters, digits, `_` and `-` become
/// `_`. A name that is too long or taken ends with a hash of the server and the tool, so it is the same after a restart.
pub(super) fn host_names(
    tools: &[(&str, &str)],
    prefixed: bool,
    own: &[&'static str],
) -> Vec<Option<String>> {
    let mut taken: HashSet<String> = own.iter().map(ToString::to_string).collect();
    let mut known = HashSet::new();
    let mut names: Vec<Option<String>> = vec![None; tools.len()];
    let fresh: Vec<bool> = tools.iter().map(|tool| known.insert(*tool)).collect();
    for exact in [true, false] {
        for ((slot, fresh), (server, tool)) in names.iter_mut().zip(&fresh).zip(tools) {
            let wanted = wanted(server, tool, prefixed);
            if !*fresh || slot.is_some() || (exact && !wanted.ends_with(*tool)) {
                continue;
            }
            let plain = (wanted.len() <= LONGEST && !tool.is_empty()).then(|| wanted.clone());
            let candidates = plain.into_iter();
            let hashed = (!exact).then(|| hashed(&wanted, server, tool));
            *slot = candidates
                .chain(hashed)
                .find(|name| taken.insert(name.clone()));
        }
    }
    names
}

fn wanted(server: &str, tool: &str, prefixed: bool) -> String {
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => character,
        _ => '_',
    };
    let tool = tool.chars().map(plain);
    if prefixed {
        server.chars().chain("__".chars()).chain(tool).collect()
    } else {
        tool.collect()
    }
}

fn hashed(wanted: &str, server: &str, tool: &str) -> String {
    // FNV-1a. A collision is found: the second tool is left out.
    let bytes = server.bytes().chain([0]).chain(tool.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let beginning: String = wanted.chars().take(LONGEST - HASH - 1).collect();
    format!("{beginning}_{hash:0HASH$x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tools: &[(&str, &str)], prefixed: bool) -> Vec<Option<String>> {
        host_names(tools, prefixed, &["bursar_budget"])
    }

    #[test]
    fn tools_of_several_servers_have_the_name_of_their_server_in_front() {
        let tools = [("a", "search"), ("b", "search"), ("b", "fetch")];
        let expected = ["a__search", "b__search", "b__fetch"].map(|name| Some(name.to_owned()));
        assert_eq!(names(&tools, true), expected);
        let one = [("a", "search"), ("a", "fetch")];
        let expected = ["search", "fetch"].map(|name| Some(name.to_owned()));
        assert_eq!(names(&one, false), expected);
    }

    #[test]
    fn a_name_that_is_strange_taken_or_too_long_stays_unique_and_short() {
        let long = "l".repeat(300);
        let longer = "l".repeat(301);
        let tools = [
            ("a", "x.y"),
            ("a", "x y"),
            ("a", "x_y"),
            ("a", "x_y"),
            ("a", &*long),
            ("a", &*longer),
            ("a", "bursar_budget"),
            ("a", ""),
            ("a", "größe"),
        ];
        let names = names(&tools, false);
        assert_eq!(names.iter().filter(|name| name.is_none()).count(), 1);
        assert_eq!(names.get(2), Some(&Some("x_y".to_owned())), "{names:?}");
        let all: Vec<_> = names.iter().flatten().collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 8, "{all:?}");
        let fits = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            (1..=LONGEST).contains(&name.len()) && name.bytes().all(plain)
        };
        assert!(all.iter().all(|name| fits(name)), "{all:?}");
        assert!(!all.iter().any(|name| *name == "bursar_budget"), "{all:?}");
        assert_eq!(
            all,
            host_names(&tools, false, &["bursar_budget"])
                .iter()
                .flatten()
                .collect::<Vec<_>>()
        );
    }
}
