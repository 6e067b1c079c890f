//! Origins against the `url` crate: one server has one spelling.

#![no_main]

use bursar::{Origin, Url};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let url = Url::parse(text).ok();
    let Ok(origin) = text.parse::<Origin>() else {
        let web = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let name = web
            .as_ref()
            .and_then(Url::host_str)
            .map(|host| host.strip_suffix('.').unwrap_or(host));
        assert!(
            name.is_none_or(|name| name.contains('*') || name.split('.').any(str::is_empty)),
            "{text}"
        );
        return;
    };
    let url = url.expect("an origin is of a URL");
    assert_eq!(origin.to_string().parse().as_ref(), Ok(&origin), "{text}");
    assert_eq!(
        (origin.scheme(), Some(origin.port())),
        (url.scheme(), url.port_or_known_default())
    );
    assert_eq!(
        Some(origin.host()),
        url.host_str().map(|host| host.trim_end_matches('.'))
    );
    assert!(
        !origin
            .host()
            .bytes()
            .any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic())
    );
    let domain = origin.registrable_domain();
    assert!(
        origin.host() == domain || origin.host().ends_with(&format!(".{domain}")),
        "{text}"
    );
    assert_eq!(
        origin.address().is_some(),
        !matches!(url.host(), Some(url::Host::Domain(_))),
        "{text}"
    );
});
