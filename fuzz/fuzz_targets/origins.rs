//! Origins against the `url` crate: one server has one spelling.

#![no_main]

use bursar::{Origin, Url};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let url = Url::parse(text).ok();
    let Ok(origin) = text.parse::<Origin>() else {
        let reachable = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        assert!(reachable.is_none_or(|url| url.host_str().is_none_or(|host| host.trim_matches('.').is_empty())));
        return;
    };
    let url = url.expect("an origin is of a URL");
    assert_eq!(origin.to_string().parse().as_ref(), Ok(&origin), "{text}");
    assert_eq!((origin.scheme(), Some(origin.port())), (url.scheme(), url.port_or_known_default()));
    assert_eq!(Some(origin.host()), url.host_str().map(|host| host.trim_end_matches('.')));
    assert!(!origin.host().bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic()));
    let domain = origin.registrable_domain();
    assert!(origin.host() == domain || origin.host().ends_with(&format!(".{domain}")), "{text}");
    assert_eq!(origin.address().is_some(), !matches!(url.host(), Some(url::Host::Domain(_))), "{text}");
});
