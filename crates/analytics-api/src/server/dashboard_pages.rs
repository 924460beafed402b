//! The dashboard's files, and what may not be done with them. Whether it was built or not, the same rules hold.

use actix_web::http::StatusCode;
use actix_web::test::TestRequest;

use super::without_database::{app, send};
use crate::auth::test_tokens::SECRET;

/// The first of the page's files, if it was built.
fn script(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("src=\"/assets/")?;
    rest.split_once('"').map(|(name, _)| name)
}

#[actix_web::test]
async fn the_page_needs_no_token_and_may_reach_nothing_else() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    let reply = send(&app, TestRequest::get().uri("/?org=x&tz=UTC")).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(reply.header("cache-control"), "no-cache");
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    let policy = reply.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
    assert!(!policy.contains("unsafe") && !policy.contains("data:") && !policy.contains("http"));
    let page = String::from_utf8(reply.body.clone()).unwrap();
    assert!(!page.contains("<style") && !page.contains("style=") && !page.contains("://"));
    assert!(page.contains("not built") || script(&page).is_some(), "{page}");

    let Some(script) = script(&page) else { return };
    let tag = reply.header("etag").to_owned();
    let again = send(
        &app,
        TestRequest::get().uri("/").insert_header(("If-None-Match", tag)),
    )
    .await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let file = send(&app, TestRequest::get().uri(&format!("/assets/{script}"))).await;
    assert_eq!(file.status, StatusCode::OK);
    assert_eq!(file.header("content-type"), "text/javascript; charset=utf-8");
    let asked = TestRequest::get().uri(&format!("/assets/{script}"));
    let small = send(&app, asked.insert_header(("Accept-Encoding", "gzip, br"))).await;
    assert_eq!(
        (small.header("content-encoding"), small.header("vary")),
        ("gzip", "accept-encoding")
    );
    assert_eq!(small.header("content-type"), "text/javascript; charset=utf-8");
    assert!(small.body.len() < 140_000, "{} bytes", small.body.len());
    assert!(small.body.starts_with(&[0x1f, 0x8b]) && !file.body.starts_with(&[0x1f, 0x8b]));
    assert_eq!(
        file.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
}

#[actix_web::test]
async fn no_other_file_is_served() {
    let app = app(&[("JWT_SECRET", SECRET)]);
    for path in [
        "/assets/",
        "/assets/x.js",
        "/assets/..%2f.gitignore",
        "/assets/..%2findex.html",
        "/index.html",
    ] {
        let reply = send(&app, TestRequest::get().uri(path)).await;
        assert_eq!(
            (reply.status, reply.problem().as_str()),
            (StatusCode::NOT_FOUND, "not-found"),
            "{path}"
        );
    }
}

#[actix_web::test]
async fn it_can_be_switched_off() {
    let app = app(&[("JWT_SECRET", SECRET), ("DASHBOARD_ENABLED", "false")]);
    let reply = send(&app, TestRequest::get().uri("/")).await;
    assert_eq!(reply.problem(), "not-found");
}
