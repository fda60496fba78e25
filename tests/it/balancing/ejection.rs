//! Endpoints whose requests fail are ejected for a while: what counts as a failure, for how long, and never all of them.

use std::sync::atomic::Ordering;

use super::stage::{Service, Stage, count, urls};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn gateway_errors_eject_and_a_success_resets() {
    for status in [502, 503, 504] {
        let (a, b) = (Service::start("a").await, Service::start("b").await);
        let stage = Stage::before(&[&a, &b], ", ejection: { failures: 3, time: 1h, max_time: 1h }");
        a.script.status.store(status, Ordering::SeqCst);
        let mut failed = 0;
        eventually("an ejection", async || {
            failed += usize::from(stage.get("/").await.0 == status);
            (stage.state(0).await == "ejected").then_some(())
        })
        .await;
        assert_eq!(failed, 3, "the service's own answers are passed on until then");
        assert_eq!(stage.metric("ejections_total", &format!("endpoint=\"{}\",", a.url())).await, 1.0);
        let lines = stage.log_lines("ejected for");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(
            (lines[0]["endpoint"].as_str(), lines[0]["why"].as_str()),
            (Some(&*a.url()), Some(&*status.to_string()))
        );

        let stage = Stage::before(&[&a, &b], ", ejection: { failures: 3, time: 1s, max_time: 1s }");
        eventually("an ejection", async || {
            stage.get("/").await;
            (!stage.log_lines("ejected for").is_empty()).then_some(())
        })
        .await;
        a.script.status.store(200, Ordering::SeqCst);
        eventually("its return", async || (stage.get("/").await.1 == "a").then_some(())).await;
        eventually("a line on its return", async || {
            (!stage.log_lines("the ejection of an endpoint ends").is_empty()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_ejections_get_longer() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let stage = Stage::before(&[&a, &b], ", ejection: { failures: 4, time: 300ms, max_time: 900ms }");
    a.script.status.store(503, Ordering::SeqCst);
    let lines = eventually("five ejections", async || {
        stage.get("/").await;
        let lines = stage.log_lines("ejected for");
        (lines.len() >= 5).then_some(lines)
    })
    .await;
    let lengths: Vec<f64> = lines
        .iter()
        .map(|line| line["message"].as_str().unwrap().rsplit(' ').next().unwrap())
        .map(|length| length.strip_suffix("ms").unwrap().parse().unwrap())
        .collect();
    for (length, wanted) in lengths.iter().zip([300.0, 600.0, 900.0, 900.0, 900.0]) {
        // Time in service shortens what counts, and a slow machine makes more of it.
        assert!(*length <= wanted * 1.1 + 1.0, "{lengths:?}");
    }
    assert!(lengths.iter().any(|length| *length >= 600.0), "{lengths:?}");
    // After the first time one failure was enough: four, and then one for each.
    assert!(a.asked() < 4 * lines.len(), "{} requests for {} ejections", a.asked(), lines.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_error_statuses_eject_no_endpoint() {
    for status in [401, 404, 429, 500] {
        let (a, b) = (Service::start("a").await, Service::start("b").await);
        let stage = Stage::on_one_worker(&urls(&[&a, &b]), ", balance: round_robin, ejection: { failures: 1 }");
        a.script.status.store(status, Ordering::SeqCst);
        for _ in 0..20 {
            stage.get("/").await;
        }
        assert_eq!((a.asked(), b.asked()), (10, 10), "{status}");
        assert_eq!(stage.state(0).await, "up", "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_endpoint_is_never_ejected_and_the_share_is_kept() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let (c, d) = (Service::start("c").await, Service::start("d").await);
    let services = [&a, &b, &c, &d];
    for service in services {
        service.script.status.store(503, Ordering::SeqCst);
    }
    for (share, most) in [("100%", 3), ("50%", 2), ("0%", 0)] {
        let stage = Stage::before(
            &services,
            &format!(", ejection: {{ failures: 1, time: 1h, max_time: 1h, max_share: {share} }}"),
        );
        for _ in 0..40 {
            let (status, name) = stage.get("/").await;
            assert_eq!((status, name.len()), (503, 1), "an endpoint's own answer: {name}");
        }
        let report = stage.report().await;
        let states: Vec<_> =
            (0..4).map(|index| report["endpoints"][index]["state"].as_str().unwrap().to_owned()).collect();
        assert_eq!(count(&states, "ejected"), most, "{share}: {states:?}");
    }
    let stage = Stage::before(&[&a], ", ejection: { failures: 1 }");
    for _ in 0..5 {
        assert_eq!(stage.get("/").await, (503, "a".to_owned()));
    }
    assert_eq!(stage.state(0).await, "failing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_endpoint_counts_as_dead_while_its_requests_fail() {
    for keys in [", ejection: { failures: 3 }", ", ejection: none"] {
        let a = Service::start("a").await;
        let up = format!("endpoint=\"{}\",", a.url());
        let stage = Stage::before(&[&a], keys);
        assert_eq!(stage.get("/").await.0, 200);
        let dead = a.kill().await;
        for _ in 0..5 {
            assert_eq!(stage.get("/").await.0, 502);
        }
        assert_eq!(stage.state(0).await, "failing");
        eventually("a dead endpoint", async || (stage.metric("endpoint_up", &up).await == 0.0).then_some(())).await;
        let _again = dead.revive().await;
        eventually("an answer", async || (stage.get("/").await.0 == 200).then_some(())).await;
        assert_eq!(stage.state(0).await, "up");
        eventually("a living endpoint", async || (stage.metric("endpoint_up", &up).await == 1.0).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_endpoint_is_ejected_and_others_serve() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let keys = ", first_byte_timeout: 3s, ejection: { failures: 2, time: 1h, max_time: 1h }";
    let stage = Stage::before(&[&a, &b], keys);
    a.script.delay.store(60_000, Ordering::SeqCst);
    eventually("an ejection", async || {
        stage.get("/").await;
        (stage.state(0).await == "ejected").then_some(())
    })
    .await;
    let before = a.asked();
    stage.answerers(30).await;
    assert_eq!(a.asked(), before);
    assert_eq!(stage.metric("endpoint_up", &format!("endpoint=\"{}\",", a.url())).await, 0.0);
    assert_eq!(stage.metric("endpoint_up", &format!("endpoint=\"{}\",", b.url())).await, 1.0);
}
