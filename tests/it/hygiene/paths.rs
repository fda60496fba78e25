//! Paths that another parser takes for others (RFC 3986 §5.2.4, §6.2.2): a path is judged as what the upstream gets, or refused.

use super::Stage;

/// `/admin` is forbidden to the token, and everything else is open to it.
const GUARDED: &str = "routes:\n  - { path: /admin, permission: \"admin:all\", upstream: up }\n  - { path: \"/admin/{*rest}\", permission: \"admin:all\", upstream: up }\n  - { path: \"/{*rest}\", upstream: up }";

/// The status for a target; refused targets do not reach the upstream.
async fn status(stage: &Stage, target: &str) -> u16 {
    let before = stage.upstream.messages().len();
    let answer = stage.send(&format!("GET {target} HTTP/1.1\r\nhost: a\r\nAUTH\r\nconnection: close\r\n\r\n")).await;
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok()).expect("a status");
    assert_eq!(stage.upstream.messages().len() - before, usize::from(status == 200), "{target}: {answer}");
    status
}

#[tokio::test]
async fn rfc3986_6_2_2_no_spelling_of_a_path_bypasses_its_route() {
    let stage = Stage::with(GUARDED).await;
    for target in [
        "/admin",
        "/admin?",
        "/admin?a=b",
        "/admin/",
        "/admin/x",
        "//admin",
        "///admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/%61%64%6d%69%6e",
        "/x/%2e%2e/admin",
        "/x/%2e./admin",
        "/x/.%2E/admin",
        "/%2e/admin",
        "/admin;a=b",
        "/;/admin",
        "/admin;/x",
        "/admin%3ba",
        "/admin%2f",
        "/admin%2Fx",
        "/%2fadmin",
        "/x%2f..%2fadmin",
        "/x/..%2fadmin",
        "/x/..;/admin",
        "/x/..;a=b/admin",
        "/ADMIN",
        "/Admin",
        "/%41dmin",
        "/adm%49n",
        "/admin%00",
        "/admin%0a",
        "/admin%0d%0a",
        "/admin%20",
        "/admin%09",
        "/admin.",
        "/admin/.",
        "/admin/..",
        "/admin/./",
        "/admin//",
        "/\\admin",
        "/x\\..\\admin",
        "/x%5c..%5cadmin",
        "/admin\\",
        "/admin%5c",
        "/%c0%af../admin",
        "/..%c0%af/admin",
        "/x/%c0%ae%c0%ae/admin",
        "/%e0%80%afadmin",
        "/%uff0fadmin",
        "/%zzadmin",
        "/%",
        "/admin%",
        "http://a/admin",
        "http://a/x/../admin",
        "http://a//admin",
        "/x/../../admin",
        "/admin#",
        "/admin#/x",
        "/x/\u{ff0e}\u{ff0e}/admin",
        "/admin\u{200b}",
    ] {
        let status = status(&stage, target).await;
        assert!(matches!(status, 400 | 403 | 404), "{target}: {status}");
    }
    assert_eq!(stage.upstream.received(), "");
}

/// Whatever a spelling looks like to the public catch-all: a route that guards what it may mean decides.
#[tokio::test]
async fn rfc3986_6_2_2_a_public_route_opens_nothing_that_a_more_specific_one_guards() {
    let stage = Stage::with(
        r#"routes:
  - { path: "/{*rest}", auth: none, upstream: up }
  - { path: "/health", auth: none, upstream: up }
  - { path: "/api/{*rest}", upstream: up }
  - { path: "/admin/{*rest}", permission: "admin:all", upstream: up }
  - { path: "/users/{id}", upstream: up }
  - { path: "/files/", upstream: up }
  - { path: "/Reports/{*rest}", upstream: up }"#,
    )
    .await;
    let status = async |target: &str, credential: &str| {
        let before = stage.upstream.messages().len();
        let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\n{credential}connection: close\r\n\r\n");
        let answer = stage.send(&request).await;
        let status: u16 = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok()).expect("a status");
        assert_eq!(stage.upstream.messages().len() - before, usize::from(status == 200), "{target}: {answer}");
        status
    };
    for (target, with_token) in [
        ("/api/", 200),
        ("/api", 200),
        ("/api/x/", 200),
        ("/%61pi/", 200),
        ("/API/", 404),
        ("/%41pi", 404),
        ("/api.", 404),
        ("/api./", 404),
        ("/api%20/", 404),
        ("/api/%20", 200),
        ("/api/...", 200),
        ("/admin/", 403),
        ("/admin/?x=1", 403),
        ("/admin?x=1", 403),
        ("/ADMIN/", 404),
        ("/%61dmin/", 403),
        ("/users/7/", 200),
        ("/users/7./", 200),
        ("/USERS/7/", 404),
        ("/files", 200),
        ("/FILES", 404),
        ("/Reports/", 200),
        ("/reports/", 404),
        ("/reports/x", 404),
    ] {
        assert_eq!(status(target, "").await, 401, "{target}");
        assert_eq!(status(target, "AUTH\r\n").await, with_token, "{target}");
    }
    for target in ["/", "/health", "/health/", "/admins", "/apis/", "/users/", "/users/7/x/", "/Else./%20/"] {
        assert_eq!(status(target, "").await, 200, "{target}");
    }
}

/// Bytes of the path and the query are the client's (RFC 9110 §7.7).
#[tokio::test]
async fn rfc9110_7_7_a_target_is_passed_on_byte_for_byte() {
    let stage = Stage::with(GUARDED).await;
    for target in [
        "/",
        "/x",
        "/%78",
        "/a%20b",
        "/a+b",
        "/%C3%A9",
        "/%252e%252e/x",
        "/a.b..c/...",
        "/x?",
        "/x?a=b&a=%2e%2e/%2f",
        "/x?/../admin",
        "/x?a=;b",
        "/a:b@c!$&'()*,=~-_.",
        "/x|y",
        "/x[1]",
        "/x{y}",
        "/x?q=^{|}\\",
    ] {
        assert_eq!(status(&stage, target).await, 200, "{target}");
        assert_eq!(stage.upstream.last().line(), format!("GET {target} HTTP/1.1"));
    }
}

/// A route that says so takes forms that can be read in two ways, and the upstream gets them as they came.
#[tokio::test]
async fn rfc9110_7_7_forms_that_a_route_allows_are_not_normalised() {
    let stage = Stage::with(
        "routes: [{ path: \"/{*rest}\", upstream: up, allow_path_forms: [encoded-slash, semicolon, empty-segments, backslash, dot-segments] }]",
    )
    .await;
    for target in ["/a%2Fb", "/a%2fb", "/a;v=1/b", "//a//b/", "/a%5Cb", "/a/../b", "/%2e"] {
        assert_eq!(status(&stage, target).await, 200, "{target}");
        assert_eq!(stage.upstream.last().line(), format!("GET {target} HTTP/1.1"));
    }
}
