//! Every route of the table, asked by every kind of caller, about its own organization, another one and
//! one that is none.

use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use actix_web::web::Data;
use serde_json::{Value, json};

use super::without_database::{Reply, app, get, send};
use crate::App;
use crate::auth::test_tokens::{ORG, OTHER_ORG, OTHER_USER, SECRET, Signer, USER, now};
use crate::routes::{Readers, TABLE};

const IN: u16 = 503;

struct Identity {
    name: &'static str,
    token: Option<String>,
}

fn identities() -> Vec<Identity> {
    let signer = Signer::secret();
    let claims = |role: &str, org_id: Value| {
        let claims = json!({"sub": USER, "role": role, "org_id": org_id, "exp": now() + 3600});
        Some(signer.token(None, &claims))
    };
    let admin = json!({"sub": USER, "role": "system_admin", "exp": now() + 3600});
    let expired = json!({"sub": USER, "role": "system_admin", "exp": now() - 3600});
    let eternal = json!({"sub": USER, "role": "system_admin"});
    vec![
        Identity {
            name: "nobody",
            token: None,
        },
        Identity {
            name: "nobody, by an expired token",
            token: Some(signer.token(None, &expired)),
        },
        Identity {
            name: "nobody, by a token that never expires",
            token: Some(signer.token(None, &eternal)),
        },
        Identity {
            name: "nobody, by another key",
            token: Some(Signer::Hmac(vec![b'x'; 32]).token(None, &admin)),
        },
        Identity {
            name: "nobody, by no signature",
            token: Some(signer.raw(r#"{"alg":"none"}"#, &admin.to_string())),
        },
        Identity {
            name: "system_admin",
            token: claims("system_admin", Value::Null),
        },
        Identity {
            name: "system_admin of an organization",
            token: claims("system_admin", json!(ORG)),
        },
        Identity {
            name: "org_admin",
            token: claims("org_admin", json!(ORG)),
        },
        Identity {
            name: "org_admin of another",
            token: claims("org_admin", json!(OTHER_ORG)),
        },
        Identity {
            name: "org_admin of none",
            token: claims("org_admin", Value::Null),
        },
        Identity {
            name: "org_user",
            token: claims("org_user", json!(ORG)),
        },
        Identity {
            name: "org_user of another",
            token: claims("org_user", json!(OTHER_ORG)),
        },
        Identity {
            name: "org_user of none",
            token: claims("org_user", Value::Null),
        },
        Identity {
            name: "no role",
            token: claims("", json!(ORG)),
        },
    ]
}

/// Written down a second time on purpose: the table in `routes` is what is under test.
fn expected(identity: &str, path: &str, asked_org: &str) -> u16 {
    if identity.starts_with("nobody") {
        return 401;
    }
    let of_system = path.contains("/system/");
    match identity {
        "system_admin" | "system_admin of an organization" if asked_org == "acme" && !of_system => 400,
        "system_admin" | "system_admin of an organization" => IN,
        _ if of_system => 403,
        "org_admin" if asked_org == ORG => IN,
        "org_admin of another" if asked_org == OTHER_ORG => IN,
        "org_user" if asked_org == ORG && !path.ends_with("/users") => IN,
        "org_user of another" if asked_org == OTHER_ORG && !path.ends_with("/users") => IN,
        _ => 403,
    }
}

/// The route, about an organization: in its path, or in its query where the path has none.
fn asked(path: &str, org: &str) -> String {
    match path.starts_with("/v1/") {
        true => format!("{path}?start_time=1793491200&end_time=1793577600&org_id={org}"),
        false => path.replace("{org_id}", org),
    }
}

/// What may not depend on whether an organization exists.
fn without_request_id(reply: &Reply) -> (StatusCode, Value) {
    let mut body = reply.json();
    body.as_object_mut().unwrap().remove("request_id").unwrap();
    (reply.status, body)
}

#[actix_web::test]
async fn every_route_by_every_identity() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let mut refusal = None;
    let mut asked_times = 0;
    for entry in TABLE.iter().filter(|entry| entry.readers != Readers::Everybody) {
        for identity in identities() {
            for org in [ORG, OTHER_ORG, "acme"] {
                let path = asked(entry.path, org);
                let reply = match &identity.token {
                    None => send(&app, TestRequest::get().uri(&path)).await,
                    Some(token) => get(&app, &path, token).await,
                };
                let expected = expected(identity.name, entry.path, org);
                assert_eq!(
                    reply.status.as_u16(),
                    expected,
                    "{} asks {path}: {reply:?}",
                    identity.name
                );
                if reply.status == StatusCode::FORBIDDEN {
                    let seen = without_request_id(&reply);
                    assert_eq!(
                        refusal.get_or_insert_with(|| seen.clone()),
                        &seen,
                        "every 403 is the same"
                    );
                }
                asked_times += 1;
            }
        }
    }
    let routes = TABLE.iter().filter(|entry| entry.readers != Readers::Everybody);
    assert_eq!(asked_times, routes.count() * identities().len() * 3);
    assert!(asked_times >= 9 * 14 * 3, "{asked_times}");
}

#[actix_web::test]
async fn a_user_reads_its_own_usage_whatever_it_asks_for() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let claims = json!({"sub": USER, "role": "org_user", "org_id": ORG, "exp": now() + 3600});
    let token = Signer::secret().token(None, &claims);
    for (query, expected) in [
        (String::new(), IN),
        (format!("?user_id={USER}"), IN),
        (format!("?user_id={OTHER_USER}"), 403),
        (format!("?user_id={USER}&user_id={OTHER_USER}"), 403),
        ("?user_id=me".to_owned(), 400),
    ] {
        for route in ["usage", "keys", "models"] {
            let path = format!("/api/v1/analytics/orgs/{ORG}/{route}{query}");
            assert_eq!(get(&app, &path, &token).await.status.as_u16(), expected, "{path}");
        }
    }
}

#[actix_web::test]
async fn without_a_name_it_is_the_callers_own_organization() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    for (role, expected) in [("org_user", IN), ("org_admin", IN), ("system_admin", 400)] {
        let claims = json!({"sub": USER, "role": role, "org_id": ORG, "exp": now() + 3600});
        let token = Signer::secret().token(None, &claims);
        for route in ["usage/completions", "costs"] {
            let path = format!("/v1/organization/{route}?start_time=1793491200&end_time=1793577600");
            let reply = get(&app, &path, &token).await;
            assert_eq!(reply.status.as_u16(), expected, "{role} {reply:?}");
            if expected == 400 {
                assert_eq!(reply.json()["errors"][0]["parameter"], "org_id");
            }
        }
    }
}

/// What the header says and the query; what a member of ORG gets, and a system admin; what is named as wrong.
type Naming<'a> = (&'a [&'a str], &'a str, u16, u16, &'a [&'a str]);

/// With a token, and these headers that name an organization.
async fn get_as(app: &Data<App>, path: &str, token: &str, organizations: &[&str]) -> Reply {
    let mut request = TestRequest::get()
        .uri(path)
        .insert_header(("Authorization", format!("Bearer {token}")));
    for organization in organizations {
        request = request.append_header(("OpenAI-Organization", *organization));
    }
    send(app, request).await
}

#[actix_web::test]
async fn a_header_names_the_organization_as_the_query_does() {
    const HEADER: &str = "OpenAI-Organization";
    let app = app(&[("JWT_SECRET", SECRET)]);
    let other = format!("&org_id={OTHER_ORG}");
    let own = format!("&org_id={ORG}");
    let upper = ORG.to_uppercase();
    let cases: [Naming<'_>; 11] = [
        (&[ORG], "", IN, IN, &[]),
        (&[&upper], &own, IN, IN, &[]),
        (&[OTHER_ORG], "", 403, IN, &[]),
        (&[OTHER_ORG], &other, 403, IN, &[]),
        (&[OTHER_ORG], &own, 403, 400, &["org_id", HEADER]),
        (&[ORG], &other, 403, 400, &["org_id", HEADER]),
        (&[ORG], "&org_id=acme", 403, 400, &["org_id"]),
        (&["acme"], "", 400, 400, &[HEADER]),
        (&["acme"], &own, 400, 400, &[HEADER]),
        (&[""], "", 400, 400, &[HEADER]),
        (&[ORG, ORG], "", 400, 400, &[HEADER]),
    ];
    let mut refusal = None;
    for role in ["org_user", "org_admin", "system_admin"] {
        let claims = json!({"sub": USER, "role": role, "org_id": ORG, "exp": now() + 3600});
        let token = Signer::secret().token(None, &claims);
        for route in ["usage/completions", "costs"] {
            for (header, query, of_member, of_admin, wrong) in cases {
                let path =
                    format!("/v1/organization/{route}?start_time=1793491200&end_time=1793577600{query}");
                let reply = get_as(&app, &path, &token, header).await;
                let expected = if role == "system_admin" {
                    of_admin
                } else {
                    of_member
                };
                let asked = format!("{role} {header:?} asks {path}: {reply:?}");
                assert_eq!(reply.status.as_u16(), expected, "{asked}");
                if expected == 400 {
                    let errors = reply.json()["errors"].as_array().unwrap().clone();
                    let named: Vec<_> = errors.iter().map(|error| &error["parameter"]).collect();
                    assert_eq!(named, wrong, "{asked}");
                }
                if expected == 403 {
                    let seen = without_request_id(&reply);
                    assert_eq!(refusal.get_or_insert_with(|| seen.clone()), &seen, "{asked}");
                }
            }
        }
        // Where the path names it, the header means nothing.
        let path = format!("/api/v1/analytics/orgs/{ORG}/usage");
        for header in [OTHER_ORG, "acme"] {
            let reply = get_as(&app, &path, &token, &[header]).await;
            assert_eq!(reply.status.as_u16(), IN, "{role} {header}");
        }
    }
    let path = "/v1/organization/costs?start_time=1793491200";
    for header in [ORG, "acme"] {
        let request = TestRequest::get().uri(path).insert_header((HEADER, header));
        assert_eq!(send(&app, request).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[actix_web::test]
async fn a_user_needs_an_id_to_have_usage_of_its_own() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let claims = json!({"sub": "alice", "role": "org_user", "org_id": ORG, "exp": now() + 3600});
    let path = format!("/api/v1/analytics/orgs/{ORG}/usage");
    let reply = get(&app, &path, &Signer::secret().token(None, &claims)).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
}

#[actix_web::test]
async fn roles_in_headers_mean_nothing() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let path = format!("/api/v1/analytics/orgs/{ORG}/usage");
    let request = TestRequest::get()
        .uri(&path)
        .insert_header(("X-User-Role", "system_admin"))
        .insert_header(("X-Actor-Roles", "system_admin"))
        .insert_header(("X-Org-Id", ORG));
    assert_eq!(send(&app, request).await.status, StatusCode::UNAUTHORIZED);
}
