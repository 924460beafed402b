//! A table of tokens that must not be let in, beside those that must, sent through the whole service.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data};
use actix_web::{App as ActixApp, HttpResponse, HttpServer};
use serde_json::{Value, json};

use super::test_tokens::{ORG, SECRET, Signer, USER, admin_claims, base64url, claims_with, now};
use crate::App;
use crate::server::without_database::{app, get};

/// Let in, as far as the database that is not there.
const IN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
const UNAUTHENTICATED: StatusCode = StatusCode::UNAUTHORIZED;
const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;

fn path() -> String {
    format!("/api/v1/analytics/orgs/{ORG}/usage")
}

async fn status(app: &Data<App>, token: &str) -> StatusCode {
    get(app, &path(), token).await.status
}

#[actix_web::test]
async fn claims_of_a_token_that_is_signed_well() {
    let app = app(&[("JWT_SECRET", SECRET), ("JWT_LEEWAY_SECONDS", "30")]);
    let signer = Signer::secret();
    let table: Vec<(&str, Value, StatusCode)> = vec![
        ("as it should be", admin_claims(), IN),
        ("not valid before now", claims_with("nbf", json!(now())), IN),
        (
            "issued in an unknown way",
            claims_with("iss", json!("anybody")),
            IN,
        ),
        ("unknown claims", claims_with("tenant", json!({"a": [1, 2]})), IN),
        (
            "an upper-case organization",
            claims_with("org_id", json!(ORG.to_uppercase())),
            IN,
        ),
        (
            "expired within the leeway",
            claims_with("exp", json!(now() - 20)),
            IN,
        ),
        ("nbf within the leeway", claims_with("nbf", json!(now() + 20)), IN),
        (
            "a fractional exp",
            claims_with("exp", json!(now() as f64 + 100.5)),
            IN,
        ),
        ("expired", claims_with("exp", json!(now() - 40)), UNAUTHENTICATED),
        ("long expired", claims_with("exp", json!(1)), UNAUTHENTICATED),
        ("never expires", claims_with("exp", Value::Null), UNAUTHENTICATED),
        (
            "exp is a string",
            claims_with("exp", json!((now() + 3600).to_string())),
            UNAUTHENTICATED,
        ),
        ("exp is negative", claims_with("exp", json!(-1)), UNAUTHENTICATED),
        (
            "exp is beyond all time",
            claims_with("exp", json!(1e300)),
            UNAUTHENTICATED,
        ),
        (
            "exp is a list",
            claims_with("exp", json!([now() + 3600])),
            UNAUTHENTICATED,
        ),
        (
            "not valid yet",
            claims_with("nbf", json!(now() + 40)),
            UNAUTHENTICATED,
        ),
        ("nbf is a string", claims_with("nbf", json!("0")), UNAUTHENTICATED),
        (
            "for somebody else",
            claims_with("aud", json!("another service")),
            UNAUTHENTICATED,
        ),
        (
            "for somebody who is no text",
            claims_with("aud", json!(["another service", 1])),
            UNAUTHENTICATED,
        ),
        ("no sub", claims_with("sub", Value::Null), FORBIDDEN),
        ("sub is empty", claims_with("sub", json!("")), FORBIDDEN),
        ("sub is a number", claims_with("sub", json!(1)), FORBIDDEN),
        ("no role", claims_with("role", Value::Null), FORBIDDEN),
        ("an unknown role", claims_with("role", json!("root")), FORBIDDEN),
        (
            "a role in upper case",
            claims_with("role", json!("ORG_ADMIN")),
            FORBIDDEN,
        ),
        (
            "a list of roles",
            claims_with("role", json!(["org_admin"])),
            FORBIDDEN,
        ),
        ("no organization", claims_with("org_id", Value::Null), FORBIDDEN),
        (
            "an organization that is no UUID",
            claims_with("org_id", json!("acme")),
            FORBIDDEN,
        ),
        (
            "an organization in braces",
            claims_with("org_id", json!(format!("{{{ORG}}}"))),
            FORBIDDEN,
        ),
        (
            "a list of organizations",
            claims_with("org_id", json!([ORG])),
            FORBIDDEN,
        ),
        (
            "an object for an organization",
            claims_with("org_id", json!({"id": ORG})),
            FORBIDDEN,
        ),
    ];
    for (what, claims, expected) in table {
        assert_eq!(
            status(&app, &signer.token(None, &claims)).await,
            expected,
            "{what}"
        );
    }
}

#[actix_web::test]
async fn tokens_that_are_not_signed_well() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let signer = Signer::secret();
    let good = signer.token(None, &admin_claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let payload = admin_claims().to_string();
    let other_payload = base64url(claims_with("org_id", json!(USER)).to_string());
    let header = |fields: &str| format!(r#"{{"typ":"JWT",{fields}}}"#);
    let signed = |fields: &str| signer.raw(&header(fields), &payload);
    let rsa = Signer::rsa();
    let table = [
        (
            "alg none, unsigned",
            format!(
                "{}.{}.",
                base64url(header(r#""alg":"none""#)),
                base64url(&payload)
            ),
        ),
        ("alg none, signed", signed(r#""alg":"none""#)),
        ("alg nOnE", signed(r#""alg":"nOnE""#)),
        ("no alg", signer.raw(r#"{"typ":"JWT"}"#, &payload)),
        ("alg is a number", signed(r#""alg":256"#)),
        ("alg twice", signed(r#""alg":"HS256","alg":"none""#)),
        ("another HMAC", signed(r#""alg":"HS512""#)),
        ("RS256 named, HMAC signed", signed(r#""alg":"RS256""#)),
        (
            "an RSA token where a secret is set",
            rsa.token(None, &admin_claims()),
        ),
        (
            "its own key in the header",
            rsa.raw(
                &json!({"alg": "RS256", "jwk": rsa.jwk("a")}).to_string(),
                &payload,
            ),
        ),
        ("crit", signed(r#""alg":"HS256","crit":["exp"]"#)),
        ("crit that is empty", signed(r#""alg":"HS256","crit":[]"#)),
        (
            "another secret",
            Signer::Hmac(vec![b'x'; 32]).token(None, &admin_claims()),
        ),
        (
            "an empty secret",
            Signer::Hmac(Vec::new()).token(None, &admin_claims()),
        ),
        ("signature cut off", head.to_owned()),
        ("signature empty", format!("{head}.")),
        ("signature shortened", good[..good.len() - 4].to_owned()),
        (
            "signature of another payload",
            format!("{}.{other_payload}.{signature}", head.split_once('.').unwrap().0),
        ),
        ("four parts", format!("{good}.x")),
        ("five parts", format!("{good}.x.y")),
        (
            "payload is no JSON",
            signer.raw(&header(r#""alg":"HS256""#), "hello"),
        ),
        ("payload is a list", signer.raw(&header(r#""alg":"HS256""#), "[]")),
        ("payload is empty", signer.raw(&header(r#""alg":"HS256""#), "")),
        (
            "role twice",
            signer.raw(
                &header(r#""alg":"HS256""#),
                &payload.replacen('{', r#"{"role":"system_admin","#, 1),
            ),
        ),
        (
            "exp twice",
            signer.raw(
                &header(r#""alg":"HS256""#),
                &payload.replacen('{', r#"{"exp":1,"#, 1),
            ),
        ),
        ("base64 with padding", format!("{good}=")),
        ("not base64", "a.b.c".to_owned()),
        ("dots", "..".to_owned()),
        ("a word", "token".to_owned()),
        ("far too long", format!("{}.{}", "a".repeat(9_000), good)),
    ];
    for (what, token) in table {
        assert_eq!(status(&app, &token).await, UNAUTHENTICATED, "{what}");
    }
    for harmless in [
        r#""alg":"HS256","jku":"https://evil.example/keys""#,
        r#""alg":"HS256","x5u":"https://evil.example/cert""#,
        r#""alg":"HS256","kid":"../../etc/passwd""#,
    ] {
        assert_eq!(
            status(&app, &signed(harmless)).await,
            IN,
            "{harmless} leads nowhere"
        );
    }
}

#[actix_web::test]
async fn issuer_and_audience_are_required_where_they_are_configured() {
    let app = app(&[
        ("JWT_SECRET", SECRET),
        ("JWT_ISSUER", "https://idp"),
        ("JWT_AUDIENCE", "analytics"),
    ]);
    let with = |iss: Value, aud: Value| {
        let mut claims = admin_claims();
        claims["iss"] = iss;
        claims["aud"] = aud;
        Signer::secret().token(None, &claims)
    };
    let (iss, aud) = (json!("https://idp"), json!("analytics"));
    assert_eq!(status(&app, &with(iss.clone(), aud.clone())).await, IN);
    assert_eq!(
        status(&app, &with(iss.clone(), json!(["portal", "analytics"]))).await,
        IN
    );
    for (wrong_iss, wrong_aud) in [
        (Value::Null, aud.clone()),
        (json!("https://idp/"), aud.clone()),
        (json!(1), aud.clone()),
        (json!({}), aud.clone()),
        (iss.clone(), Value::Null),
        (iss.clone(), json!("portal")),
        (iss.clone(), json!([])),
        (iss.clone(), json!(["portal"])),
        (iss.clone(), json!({"analytics": true})),
        (iss, json!(1)),
    ] {
        let what = format!("{wrong_iss} {wrong_aud}");
        assert_eq!(
            status(&app, &with(wrong_iss, wrong_aud)).await,
            UNAUTHENTICATED,
            "{what}"
        );
    }
}

#[actix_web::test]
async fn keys_of_a_file() {
    let (rsa, p256, ed25519) = (Signer::rsa(), Signer::p256(), Signer::ed25519());
    let keys = json!({"keys": [rsa.jwk("r"), p256.jwk("p"), ed25519.jwk("e"), Signer::secret().jwk("oct")]});
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    std::fs::write(&file, keys.to_string()).unwrap();
    let app = app(&[("JWT_JWKS_FILE", file.to_str().unwrap())]);
    let claims = admin_claims();

    for (signer, kid) in [(&rsa, "r"), (&p256, "p"), (&ed25519, "e")] {
        assert_eq!(status(&app, &signer.token(Some(kid), &claims)).await, IN, "{kid}");
        assert_eq!(
            status(&app, &signer.token(None, &claims)).await,
            IN,
            "{kid}, unnamed: no choice"
        );
    }
    let confused = Signer::Hmac(rsa.public_der());
    let modulus = Signer::Hmac(rsa.jwk("r")["n"].as_str().unwrap().as_bytes().to_vec());
    for (what, token) in [
        ("unknown key id", rsa.token(Some("x"), &claims)),
        ("empty key id", rsa.token(Some(""), &claims)),
        ("the id of another kind of key", rsa.token(Some("p"), &claims)),
        ("another key of the kind", Signer::rsa().token(Some("r"), &claims)),
        ("another P-256 key", Signer::p256().token(Some("p"), &claims)),
        ("another Ed25519 key", Signer::ed25519().token(Some("e"), &claims)),
        (
            "the public key as an HMAC secret",
            confused.token(Some("r"), &claims),
        ),
        ("the modulus as an HMAC secret", modulus.token(Some("r"), &claims)),
        (
            "a secret that the document gives away",
            Signer::secret().token(Some("oct"), &claims),
        ),
    ] {
        assert_eq!(status(&app, &token).await, UNAUTHENTICATED, "{what}");
    }
}

/// A provider whose document and number of answers the test holds in hand.
struct TestProvider {
    url: String,
    document: Arc<std::sync::Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

fn provider(first: &Value) -> TestProvider {
    let document = Arc::new(std::sync::Mutex::new(first.to_string()));
    let asked = Arc::new(AtomicUsize::new(0));
    let (served, counted) = (document.clone(), asked.clone());
    let server = HttpServer::new(move || {
        let (served, counted) = (served.clone(), counted.clone());
        ActixApp::new().default_service(web::to(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let document = served.lock().unwrap().clone();
            async move {
                match document.strip_prefix("-> ") {
                    Some(address) => HttpResponse::Found()
                        .insert_header(("Location", address))
                        .finish(),
                    None => HttpResponse::Ok().body(document),
                }
            }
        }))
    })
    .workers(1)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .unwrap();
    let url = format!("http://{}/keys", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    TestProvider { url, document, asked }
}

impl TestProvider {
    fn serves(&self, document: &impl ToString) {
        *self.document.lock().unwrap() = document.to_string();
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[actix_web::test]
async fn unknown_keys_are_fetched_once_however_many_ask() {
    let (old, new) = (Signer::ed25519(), Signer::ed25519());
    let provider = provider(&json!({"keys": [old.jwk("old")]}));
    let app = app(&[("JWT_JWKS_URL", &provider.url)]);
    let claims = admin_claims();
    let many = (0..20).map(|_| {
        let (app, token) = (app.clone(), old.token(Some("old"), &claims));
        async move { status(&app, &token).await }
    });
    let statuses = futures_util::future::join_all(many).await;
    assert!(statuses.iter().all(|status| *status == IN), "{statuses:?}");
    assert_eq!(provider.asked(), 1, "a single flight");

    // The provider has a new key, but was asked just now; a flood of unknown keys does not change that.
    provider.serves(&json!({"keys": [new.jwk("new")]}));
    for n in 0..20 {
        let token = new.token(Some(&format!("new{n}")), &claims);
        assert_eq!(status(&app, &token).await, UNAUTHENTICATED);
    }
    assert_eq!(provider.asked(), 1);
    assert_eq!(
        status(&app, &old.token(Some("old"), &claims)).await,
        IN,
        "old keys stay"
    );
}

#[actix_web::test]
async fn keys_are_rotated_and_outlast_their_provider() {
    let (old, new) = (Signer::ed25519(), Signer::ed25519());
    let provider = provider(&json!({"keys": [old.jwk("old")]}));
    let app = app(&[("JWT_JWKS_URL", &provider.url)]);
    let claims = admin_claims();
    let (by_old, by_new) = (old.token(Some("old"), &claims), new.token(Some("new"), &claims));
    assert_eq!(status(&app, &by_old).await, IN);

    provider.serves(&json!({"keys": [new.jwk("new")]}));
    assert_eq!(status(&app, &by_new).await, UNAUTHENTICATED, "asked just now");
    app.authenticator.elapse(Duration::from_secs(31)).await;
    assert_eq!(status(&app, &by_new).await, IN, "an unknown key is fetched");
    assert_eq!(
        status(&app, &by_old).await,
        UNAUTHENTICATED,
        "a withdrawn key is gone"
    );
    assert_eq!(provider.asked(), 2);

    provider.serves(&"away");
    app.authenticator.elapse(Duration::from_secs(31)).await;
    assert_eq!(status(&app, &by_old).await, UNAUTHENTICATED);
    assert_eq!(provider.asked(), 3);
    assert_eq!(status(&app, &by_new).await, IN, "the keys at hand stay in use");
}

#[actix_web::test]
async fn a_provider_that_gives_no_keys_is_unavailable_not_a_verdict() {
    let signer = Signer::ed25519();
    for document in [
        "not found".to_owned(),
        json!({"keys": []}).to_string(),
        // Good keys, but more than anybody needs.
        json!({"keys": [signer.jwk("k")], "padding": "x".repeat(300_000)}).to_string(),
    ] {
        let provider = provider(&Value::Null);
        provider.serves(&document);
        let app = app(&[("JWT_JWKS_URL", &provider.url)]);
        let reply = get(&app, &path(), &signer.token(Some("k"), &admin_claims())).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            reply.json()["detail"].as_str().unwrap().contains("signing keys"),
            "{reply:?}"
        );
        assert!(reply.headers.contains_key("retry-after"));
    }
}

#[actix_web::test]
async fn a_provider_that_points_elsewhere_is_not_followed() {
    let signer = Signer::ed25519();
    let elsewhere = provider(&json!({"keys": [signer.jwk("k")]}));
    let provider = provider(&Value::Null);
    provider.serves(&format!("-> {}", elsewhere.url));
    let app = app(&[("JWT_JWKS_URL", &provider.url)]);
    let reply = get(&app, &path(), &signer.token(Some("k"), &admin_claims())).await;
    assert!(
        reply.json()["detail"].as_str().unwrap().contains("signing keys"),
        "{reply:?}"
    );
    assert_eq!((provider.asked(), elsewhere.asked()), (1, 0));
}
