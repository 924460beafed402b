//! What the service answers to requests that it does not serve, and to the probes.

use actix_web::http::{Method, StatusCode};
use actix_web::test::TestRequest;
use serde_json::json;

use super::without_database::{app, get, send};
use crate::auth::test_tokens::{ORG, SECRET, Signer, admin_claims};
use crate::metrics;

fn usage(query: &str) -> String {
    format!("/api/v1/analytics/orgs/{ORG}/usage{query}")
}

#[actix_web::test]
async fn every_refusal_is_a_problem_with_the_id_of_the_request() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let token = Signer::secret().token(None, &admin_claims());
    let with_token =
        |request: TestRequest| request.insert_header(("Authorization", format!("Bearer {token}")));
    let long = "x".repeat(17_000);
    for (request, status, problem) in [
        (TestRequest::get().uri("/index.html"), 404, "not-found"),
        (TestRequest::get().uri("/api/v1/analytics/orgs"), 404, "not-found"),
        (
            TestRequest::get().uri(&format!("{}/", usage(""))),
            404,
            "not-found",
        ),
        (TestRequest::post().uri("/health"), 405, "method-not-allowed"),
        (
            TestRequest::default().method(Method::OPTIONS).uri(&usage("")),
            405,
            "method-not-allowed",
        ),
        (TestRequest::get().uri(&usage("")), 401, "unauthenticated"),
        (
            with_token(TestRequest::get().uri(&usage("?modle=a"))),
            400,
            "invalid-parameter",
        ),
        (
            with_token(TestRequest::get().uri(&usage("?model=%zz"))),
            400,
            "malformed-query",
        ),
        (
            with_token(TestRequest::get().uri(&usage("?model=%ff"))),
            400,
            "malformed-query",
        ),
        (
            with_token(TestRequest::get().uri(&usage(&format!("?model={long}")))),
            414,
            "target-too-long",
        ),
        (
            with_token(
                TestRequest::get()
                    .uri(&usage(""))
                    .insert_header(("X-A", "x".repeat(33_000))),
            ),
            431,
            "headers-too-large",
        ),
        (
            with_token(
                TestRequest::get()
                    .uri(&usage(""))
                    .insert_header(("Content-Length", "5")),
            ),
            413,
            "body-too-large",
        ),
        (
            with_token(
                TestRequest::get()
                    .uri(&usage(""))
                    .insert_header(("Accept", "text/html")),
            ),
            406,
            "not-acceptable",
        ),
        (
            with_token(
                TestRequest::get()
                    .uri(&usage(""))
                    .insert_header(("Accept-Encoding", "identity;q=0, br")),
            ),
            406,
            "not-acceptable",
        ),
        (with_token(TestRequest::get().uri(&usage(""))), 503, "unavailable"),
    ] {
        let reply = send(&app, request.insert_header(("X-Request-Id", "trace-7"))).await;
        assert_eq!(
            (reply.status.as_u16(), reply.problem().as_str()),
            (status, problem),
            "{reply:?}"
        );
        let body = reply.json();
        assert_eq!(
            (&body["status"], &body["request_id"]),
            (&json!(status), &json!("trace-7"))
        );
        assert_eq!(reply.header("x-request-id"), "trace-7");
        assert_eq!(reply.headers.contains_key("www-authenticate"), status == 401);
        assert_eq!(reply.headers.contains_key("retry-after"), status == 503);
        assert_eq!(reply.headers.contains_key("allow"), status == 405);
    }
}

#[actix_web::test]
async fn a_request_id_that_could_forge_a_log_is_replaced() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    for id in ["a b", "a\"b", &"x".repeat(200)] {
        let reply = send(
            &app,
            TestRequest::get()
                .uri("/nothing")
                .insert_header(("X-Request-Id", id)),
        )
        .await;
        let given = reply.header("x-request-id").to_owned();
        assert!(uuid::Uuid::try_parse(&given).is_ok(), "{given}");
        assert_eq!(reply.json()["request_id"], given);
    }
}

#[actix_web::test]
async fn one_bearer_token_and_no_other_scheme() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let token = Signer::secret().token(None, &admin_claims());
    let header = |value: &str| {
        TestRequest::get()
            .uri(&usage(""))
            .insert_header(("Authorization", value))
    };
    let status = async |request: TestRequest| send(&app, request).await.status.as_u16();
    assert_eq!(
        status(header(&format!("bearer {token}"))).await,
        503,
        "the scheme has no case"
    );
    assert_eq!(
        status(header(&format!("Bearer  {token} "))).await,
        503,
        "spaces around do no harm"
    );
    for wrong in [
        token.clone(),
        format!("Basic {token}"),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer {token} {token}"),
        format!("Bearer {token},{token}"),
    ] {
        assert_eq!(status(header(&wrong)).await, 401, "{wrong}");
    }
    let twice =
        header(&format!("Bearer {token}")).append_header(("Authorization", format!("Bearer {token}")));
    assert_eq!(status(twice).await, 401);
    let in_the_query = TestRequest::get().uri(&usage(&format!("?access_token={token}")));
    assert_eq!(status(in_the_query).await, 401);
}

#[actix_web::test]
async fn a_question_that_has_no_exact_answer_says_what_has_one() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let mut claims = admin_claims();
    claims["role"] = json!("system_admin");
    let token = Signer::secret().token(None, &claims);
    let path = "/api/v1/analytics/system/usage?start_time=2026-11-01T00:07:00Z&end_time=2026-11-02T00:00:00Z";
    let reply = get(&app, path, &token).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let error = &reply.json()["errors"][0];
    assert_eq!(error["parameter"], "start_time");
    assert_eq!(error["allowed"], json!(["2026-11-01T00:00:00Z"]));
}

#[actix_web::test]
async fn probes_need_no_token_and_health_no_database() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let health = send(&app, TestRequest::get().uri("/health")).await;
    assert_eq!(
        (health.status.as_u16(), health.json()),
        (200, json!({"status": "ok"}))
    );

    let ready = send(&app, TestRequest::get().uri("/ready")).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.header("content-type"), "application/json");
    assert_eq!(ready.json()["database"], "unreachable");
    assert_eq!(ready.json()["missing"], json!(["the database cannot be reached"]));

    send(
        &app,
        TestRequest::get().uri("/api/v1/analytics/orgs/s3cret/usage?model=s3cret"),
    )
    .await;
    send(
        &app,
        TestRequest::get()
            .uri("/s3cret")
            .method(Method::from_bytes(b"S3CRET").unwrap()),
    )
    .await;
    let reply = send(&app, TestRequest::get().uri("/metrics")).await;
    let text = String::from_utf8(reply.body).unwrap();
    assert!(
        !text.to_lowercase().contains("s3cret"),
        "labels are of our choosing: {text}"
    );
    assert!(
        text.contains(r#"route="/api/v1/analytics/orgs/{org_id}/usage""#),
        "{text}"
    );
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(metrics::NAMES.contains(&name), "{name} is not in the list");
    }
}
