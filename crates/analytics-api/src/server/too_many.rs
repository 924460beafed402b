//! Callers that ask more than they may, and more questions than are answered at once.

use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use serde_json::json;

use super::without_database::{app, get, send};
use crate::auth::test_tokens::{ORG, OTHER_USER, SECRET, Signer, admin_claims, claims_with};

fn path() -> String {
    format!("/api/v1/analytics/orgs/{ORG}/usage")
}

#[actix_web::test]
async fn a_caller_that_asks_too_much_is_told_when_to_come_back() {
    let app = app(&[("JWT_SECRET", SECRET), ("RATE_LIMIT_PER_SECOND", "1")]);
    let signer = Signer::secret();
    let token = signer.token(None, &admin_claims());
    for _ in 0..2 {
        assert_eq!(
            get(&app, &path(), &token).await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
    let refused = get(&app, &path(), &token).await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem().as_str()),
        (429, "too-many-requests")
    );
    assert_eq!(refused.header("retry-after"), "1");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("1 questions a second") && detail.contains("2 at once"),
        "{detail}"
    );

    // What it may not read counts as well, on every route.
    let other = "/api/v1/analytics/system/orgs";
    assert_eq!(
        get(&app, other, &token).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    // Another caller is not concerned, and a new token does not make one.
    let other = signer.token(None, &claims_with("sub", json!(OTHER_USER)));
    assert_eq!(
        get(&app, &path(), &other).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let renewed = signer.token(None, &claims_with("jti", json!("renewed")));
    assert_eq!(
        get(&app, &path(), &renewed).await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
}

#[actix_web::test]
async fn a_bad_token_is_told_so_however_often_it_comes() {
    let app = app(&[
        ("JWT_SECRET", SECRET),
        ("RATE_LIMIT_PER_SECOND", "1"),
        ("IN_FLIGHT_LIMIT", "1"),
    ]);
    let _answering = app.admission.admit(&"somebody").unwrap();
    let expired = Signer::secret().token(None, &claims_with("exp", json!(1)));
    for _ in 0..10 {
        assert_eq!(
            get(&app, &path(), &expired).await.status,
            StatusCode::UNAUTHORIZED
        );
        let nobody = TestRequest::get().uri(&path());
        assert_eq!(send(&app, nobody).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[actix_web::test]
async fn more_questions_than_are_answered_at_once_are_refused_and_probes_are_not() {
    let app = app(&[("JWT_SECRET", SECRET), ("IN_FLIGHT_LIMIT", "1")]);
    let token = Signer::secret().token(None, &admin_claims());
    let answering = app.admission.admit(&"somebody").unwrap();
    let refused = get(&app, &path(), &token).await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem().as_str()),
        (503, "busy")
    );
    assert_eq!(refused.header("retry-after"), "1");
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("answering 1 questions")
    );
    let health = send(&app, TestRequest::get().uri("/health")).await;
    assert_eq!(health.status, StatusCode::OK);
    drop(answering);
    assert_eq!(get(&app, &path(), &token).await.problem(), "unavailable");
    // The place is free again after an answer.
    assert_eq!(get(&app, &path(), &token).await.problem(), "unavailable");
}
