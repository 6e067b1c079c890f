//! Lists of services: bazaars, well-known files, OpenAPI documents and MCP registries.

#![no_main]

use bursar::discovery::SourceKind;
use bursar::fuzzing::{self, Listed};
use libfuzzer_sys::fuzz_target;

const KINDS: [SourceKind; 4] = [
    SourceKind::Bazaar,
    SourceKind::WellKnown,
    SourceKind::OpenApi,
    SourceKind::Registry,
];

fuzz_target!(|data: &[u8]| {
    for kind in KINDS {
        let Some(listed) = fuzzing::listed(kind, data) else {
            continue;
        };
        counts(kind, &listed);
        for (url, advertised, fitting) in &listed.services {
            assert!(
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.fragment().is_none()
            );
            assert!(
                url.username().is_empty() && url.password().is_none(),
                "a secret would be sent"
            );
            assert!(*fitting <= 8);
            let texts = [
                &advertised.name,
                &advertised.description,
                &advertised.mime_type,
            ];
            texts
                .into_iter()
                .flatten()
                .chain(&advertised.tags)
                .for_each(|text| tame(text));
            let input = advertised.input.as_deref().unwrap_or_default();
            assert!(!fuzzing::has_long_hex(input));
        }
    }
});

/// Nothing is lost without being counted.
fn counts(kind: SourceKind, listed: &Listed) {
    let known = listed.services.len() + listed.skipped.count;
    match kind {
        // Paths that cannot be read are counted, and their operations are not known.
        SourceKind::OpenApi => assert!(known >= listed.items),
        _ => assert_eq!(known, listed.items),
    }
    assert!(listed.skipped.reasons.len() <= 8);
    assert_eq!(listed.skipped.reasons.is_empty(), listed.skipped.count == 0);
    listed
        .skipped
        .reasons
        .iter()
        .for_each(|reason| tame(reason));
}

fn tame(text: &str) {
    assert!(text.chars().count() <= 161, "{text}");
    assert!(!fuzzing::has_long_hex(text), "{text}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
