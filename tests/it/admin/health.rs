//! The listener for health and metrics alone.

use reqwest::Method;

use super::{AdminToken, FILE, send};
use crate::support::gateway::Site;

#[tokio::test]
async fn health_and_metrics_have_a_listener_of_their_own_and_nothing_else_is_there() {
    let ops = AdminToken::new();
    let rest = format!(
        "{FILE}\nadmin: {{ tokens: [{}] }}\nroutes: [{{ path: /a, upstream: up }}]\nupstreams: {{ up: {{ endpoints: [\"http://127.0.0.1:9\"] }} }}",
        ops.line("ops", "write")
    );
    let gateway = Site::with_listen(", health: \"127.0.0.1:0\"", &rest).serve();
    let health = gateway.health.unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |method, path: &str| {
        let request = client.request(method, format!("http://{health}{path}")).header("host", "probe.internal");
        send(request.header("x-callgate-admin", "1")).await
    };
    for (path, wanted) in [("/livez", "ok\n"), ("/readyz", "ready\n")] {
        let (status, _, body) = ask(Method::GET, path).await;
        assert_eq!((status, body.as_str()), (200, Some(wanted)));
        assert_eq!(ask(Method::HEAD, path).await.0, 200);
    }
    let (status, _, metrics) = ask(Method::GET, "/metrics").await;
    assert!(status == 200 && metrics.as_str().unwrap().contains("callgate_build_info"));
    for path in ["/", "/status", "/api/tokens", "/api/openapi.json", "/api/reload", "/nowhere"] {
        let (status, _, body) = ask(Method::GET, path).await;
        assert_eq!((status, &body["code"]), (404, &"not_found".into()), "{path}");
    }
    for (method, path) in [(Method::POST, "/api/reload"), (Method::DELETE, "/metrics"), (Method::PUT, "/api/log-level")]
    {
        assert_eq!(ask(method, path).await.0, 404, "{path}");
    }
    // A token gives nothing more here.
    let request = client.get(format!("http://{health}/api/tokens")).bearer_auth(&ops.secret);
    assert_eq!(send(request).await.0, 404);
}
