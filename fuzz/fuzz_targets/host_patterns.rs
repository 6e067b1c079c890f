//! Host patterns: `*.example.com` never covers what is not below it, `example.com` only itself.

#![no_main]

use bursar::origin::HostPattern;
use bursar::{Origin, Url};
use libfuzzer_sys::fuzz_target;

// A pattern and a host, with a space between.
fuzz_target!(|input: &str| {
    let (text, host) = input.split_once(' ').unwrap_or((input, input));
    let Ok(pattern) = text.parse::<HostPattern>() else {
        return;
    };
    assert_eq!(pattern.to_string().parse().as_ref(), Ok(&pattern), "{text}");
    let shown = pattern.to_string();
    let name = shown.strip_prefix("*.");
    // A pattern for one host covers the host that is asked by that name.
    let asked = Url::parse(&format!("https://{}/", name.unwrap_or(&shown)))
        .ok()
        .and_then(|url| Origin::of(&url));
    if let Some(asked) = &asked {
        assert_eq!(
            pattern.matches(asked.host()),
            name.is_none(),
            "{text} {asked}"
        );
    }
    let Ok(origin) = format!("https://{host}/").parse::<Origin>() else {
        return;
    };
    let below = |name: &str| {
        labels(origin.host())
            .strip_suffix(&*labels(name))
            .is_some_and(|front| !front.is_empty())
    };
    let covered = name.map_or(origin.host() == shown, |name| below(name));
    assert_eq!(pattern.matches(origin.host()), covered, "{text} {origin}");
});

fn labels(host: &str) -> Vec<&str> {
    host.split('.').collect()
}
