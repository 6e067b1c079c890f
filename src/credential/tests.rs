use super::*;

fn key() -> SecretString {
    SecretString::from("s3cret".to_owned())
}

fn sent(credential: &Credential, url: &str) -> Request {
    let mut request = Request::new(http::Method::GET, url.parse().unwrap());
    credential.attach(&key(), &mut request).unwrap();
    request
}

#[test]
fn a_key_is_sent_in_its_place_and_never_shown() {
    let bearer = Credential::bearer("b", key());
    let request = sent(&bearer, "https://a.example/x");
    assert_eq!(request.headers()["authorization"], "Bearer s3cret");
    assert!(request.headers()["authorization"].is_sensitive());
    assert!(!format!("{request:?} {bearer:?}").contains("s3cret"));
    let request = sent(
        &Credential::header("h", "x-api-key", key()),
        "https://a.example/x",
    );
    assert_eq!(request.headers()["x-api-key"], "s3cret");
    // RFC 7617: `user:s3cret`.
    let request = sent(
        &Credential::basic("c", "user", key()),
        "https://a.example/x",
    );
    assert_eq!(request.headers()["authorization"], "Basic dXNlcjpzM2NyZXQ=");
    let query = Credential::query("q", "key", key());
    assert_eq!(
        sent(&query, "https://a.example/x?a=1").url().as_str(),
        "https://a.example/x?a=1&key=s3cret"
    );
    assert_eq!(
        sent(&query, "https://a.example/x?key=old&a=1")
            .url()
            .query(),
        Some("a=1&key=s3cret")
    );
    assert_eq!(
        sent(&query, "https://a.example/x?a=%20b+c").url().query(),
        Some("a=%20b+c&key=s3cret")
    );
}

#[test]
fn the_most_specific_key_is_used_and_other_hosts_get_none() {
    let keys = Credentials::new()
        .host("*.example.com", Credential::bearer("all", key()))
        .host("*.eu.example.com", Credential::bearer("eu", key()))
        .host("api.example.com", Credential::bearer("host", key()))
        .host("api.example.com", Credential::bearer("second", key()))
        .host(
            "https://api.example.com:8443",
            Credential::bearer("origin", key()),
        );
    keys.check().unwrap();
    let name = |origin: &str| keys.find(&origin.parse().unwrap()).map(Credential::name);
    assert_eq!(name("https://api.example.com"), Some("host"));
    assert_eq!(name("https://api.example.com:8443"), Some("origin"));
    assert_eq!(name("https://b.eu.example.com"), Some("eu"));
    assert_eq!(name("https://b.example.com"), Some("all"));
    for other in [
        "https://example.com",
        "https://api.example.com.evil.example",
        "https://notexample.com",
    ] {
        assert_eq!(name(other), None, "{other}");
    }
}

#[test]
fn mistakes_are_reported_when_the_client_is_built() {
    let mistakes = [
        Credentials::new().host("not a host", Credential::bearer("x", key())),
        Credentials::new().host("a.example", Credential::bearer("", key())),
        Credentials::new().host("a.example", Credential::header("x", "not a header", key())),
        Credentials::new().host("a.example", Credential::bearer("x", key()).pay_when([4])),
        Credentials::new()
            .host("a.example", Credential::bearer("x", key()))
            .host(
                "b.example",
                Credential::bearer("x", key()).plan(CallPlan::per_call(crate::usd!("1"))),
            ),
    ];
    for mistake in mistakes {
        assert_eq!(
            mistake.check().unwrap_err().kind(),
            ErrorKind::Builder,
            "{mistake:?}"
        );
    }
    let lines = Credential::bearer("x", SecretString::from("a\nb".to_owned()));
    let mut request = Request::new(http::Method::GET, "https://a.example".parse().unwrap());
    let broken = lines
        .attach(&SecretString::from("a\nb".to_owned()), &mut request)
        .unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::Credential);
    assert!(!request.headers().contains_key(AUTHORIZATION));
}
