//! Requests to the admin listener, with secrets where they belong and where they don't.

use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;

use super::commands::Tokens;
use super::scene::Scene;
use crate::support::gateway::Gateway;

fn request(gateway: &Gateway, method: Method, path: &str) -> RequestBuilder {
    let client = Client::builder().no_proxy().timeout(crate::support::WAIT_TIMEOUT).build().unwrap();
    client.request(method, format!("http://127.0.0.1:{}{path}", gateway.admin.port())).header("x-callgate-admin", "1")
}

/// Sends it, hears the head of the answer, and returns status and body.
async fn reported(scene: &mut Scene, request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = format!("{:?}", response.headers());
    scene.evidence.record("the head of an admin answer", &headers);
    (status, response.text().await.unwrap())
}

/// The same with an answer that has no secret in it.
async fn ask(scene: &mut Scene, request: RequestBuilder) -> u16 {
    let (status, body) = reported(scene, request).await;
    scene.evidence.record("an admin answer", &body);
    status
}

/// Looks at a token in every way.
pub(super) async fn look(scene: &mut Scene, gateway: &Gateway, id: &str) {
    for path in ["/api/tokens", "/api/audit", "/metrics", "/readyz"] {
        ask(scene, request(gateway, Method::GET, path)).await;
    }
    for path in ["/api/tokens", "/api/limits"] {
        ask(scene, request(gateway, Method::GET, &format!("{path}/{id}"))).await;
    }
}

pub(super) async fn requests(scene: &mut Scene, gateway: &Gateway, tokens: &Tokens) {
    let post = |path: &str| request(gateway, Method::POST, path);
    let asked = json!({ "name": "over the API", "account": "acme", "permissions": ["calls:red"] });
    let create = || post("/api/tokens").header("idempotency-key", &tokens.good.secret).json(&asked);
    let (status, made) = reported(scene, create()).await;
    assert_eq!(status, 201);
    let made = scene.take_secret("over the API", &made);
    assert_eq!(ask(scene, create()).await, 200);
    let (status, new) = reported(scene, post(&format!("/api/tokens/{}/rotate", made.id))).await;
    assert_eq!(status, 200);
    scene.take_secret("rotated over the API", &new);
    let register = json!({ "name": "f", "account": "acme", "sha256": tokens.foreign_hash });
    assert_eq!(ask(scene, post("/api/tokens").json(&register)).await, 409);
    for action in ["disable", "enable", "revoke"] {
        assert_eq!(ask(scene, post(&format!("/api/tokens/{}/{action}", made.id))).await, 200);
    }
    look(scene, gateway, &tokens.old.id).await;
    for secret in [&tokens.good.secret, &tokens.foreign] {
        misplaced(scene, gateway, secret).await;
    }
}

/// Secrets where they don't belong.
async fn misplaced(scene: &mut Scene, gateway: &Gateway, secret: &str) {
    let escaped = secret.replace('|', "%7C");
    let at = |method: Method, path: &str| request(gateway, method, &path.replace("SECRET", &escaped));
    let rename = json!({ "name": "n" });
    let requests = [
        at(Method::GET, "/api/tokens/SECRET"),
        at(Method::PATCH, "/api/tokens/SECRET").header("if-match", "*").json(&rename),
        at(Method::PATCH, "/api/tokens/SECRET").header("if-match", format!("\"{secret}\"")).json(&rename),
        at(Method::POST, "/api/tokens/SECRET/rotate"),
        at(Method::POST, "/api/tokens/SECRET/revoke"),
        at(Method::GET, "/api/limits/SECRET"),
        at(Method::DELETE, "/api/limits/SECRET"),
        at(Method::GET, "/api/SECRET"),
        at(Method::GET, "/api/tokens?after=SECRET"),
        at(Method::GET, "/api/tokens?state=SECRET"),
        at(Method::GET, "/api/tokens?limit=SECRET"),
        at(Method::GET, "/api/audit?before=SECRET"),
        at(Method::GET, "/metrics").bearer_auth(secret),
        at(Method::GET, "/api/tokens").header("authorization", secret),
        at(Method::POST, "/api/tokens").json(&json!({ "name": "n", "account": "a", "sha256": secret })),
        at(Method::POST, "/api/tokens").json(&json!({ "name": "n", "account": "a", "token": secret })),
        at(Method::POST, "/api/tokens").json(&json!({ "name": [secret], "account": "a", "expires_at": secret })),
        at(Method::POST, "/api/tokens").header("content-type", "application/json").body(format!("{{\"a\": {secret}")),
        at(Method::POST, "/api/tokens").header("content-type", secret).body("{}"),
        at(Method::POST, "/api/accounts/revoke").json(&json!({ "account": [secret] })),
    ];
    for request in requests {
        let status = ask(scene, request).await;
        assert!((400..500).contains(&status) || status == 200, "{status}");
    }
}
