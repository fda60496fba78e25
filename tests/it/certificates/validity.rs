//! Certificates whose time is over, or ends soon: the gateway serves with them, and says so.

use std::time::{Duration, SystemTime};

use crate::support::eventually;
use crate::support::gateway::Site;

#[tokio::test]
async fn serve_starts_with_a_certificate_that_clients_refuse_and_logs_it() {
    // In hours from now.
    for (from, to, level, wanted) in [
        (-500, -60, "ERROR", ", 2 days ago: clients refuse it, so renew it now"),
        (-500, 200, "WARN", ", in 8 days: renew it before that day"),
        (60, 500, "ERROR", ", in 2 days: until then clients refuse it (is the clock of this machine right?)"),
    ] {
        let site = Site::new(
            "tokens: { file: tokens.yaml }\nroutes: [{ path: /a, upstream: a }]\nupstreams: { a: { endpoints: [\"http://127.0.0.1:1\"] } }",
        );
        let time = |hours: i64| {
            let now = SystemTime::now();
            let span = Duration::from_secs(hours.unsigned_abs() * 3600);
            if hours < 0 { (now - span).into() } else { (now + span).into() }
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (time(from), time(to));
        std::fs::write(site.path("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        site.write_secret("key.pem", &key.serialize_pem());
        let gateway = site.serve();
        let line = eventually("a line about the certificate", async || {
            let is_it = |line: &serde_json::Value| line["message"].as_str().is_some_and(|text| text.ends_with(wanted));
            gateway.log().into_iter().find(is_it)
        })
        .await;
        assert_eq!(line["level"], level, "{line}");
        assert_eq!(line["certificate"], site.path("cert.pem").display().to_string(), "{line}");
        // At the start, the position in the configuration, too.
        assert!(gateway.output().contains("callgate.yaml:2:31: tls.certificates[0].cert: "), "{}", gateway.output());
    }
}
