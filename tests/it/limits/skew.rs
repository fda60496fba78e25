//! Redis's clock may be another than that of the machine that answers: clients are told times on the latter.

use callgate::limits::{Decision, LimitOutcome, LimitSubject};

use super::stores::{Subject, VERSION, plan, set_clock, unix_ms};

#[tokio::test]
async fn times_are_told_on_the_clock_of_the_instance() {
    let subject = Subject::redis().await;
    let Subject::Redis { redis, denials, .. } = &subject else { unreachable!() };
    let plan = plan(&[(1, 5_000)]);
    let ask = async |token: &str, skew_ms: i64| -> (u64, Decision) {
        denials.forget(token);
        let now_ms = unix_ms();
        set_clock(redis, token, now_ms as i64 + skew_ms).await;
        let asked = LimitSubject { token_id: token, version: VERSION };
        match subject.limiter().decide(&asked, &plan, 1, now_ms, &|| true).await.unwrap() {
            LimitOutcome::Decided(decision, _) => (now_ms, decision),
            LimitOutcome::Stale => panic!("stale"),
        }
    };
    for skew_ms in [-3_000, 86_400_000, 0] {
        let token = format!("t{skew_ms}");
        let (admitted_ms, admitted) = ask(&token, skew_ms).await;
        assert!(admitted.admitted);
        let (now_ms, denial) = ask(&token, skew_ms).await;
        let told = denial.reported().unwrap();
        let late = unix_ms() - admitted_ms;
        assert!(!denial.admitted);
        let frees_ms = denial.windows()[0].frees_ms;
        // As exactly as an answer of Redis can be placed in time.
        assert!(frees_ms + 2 >= admitted_ms + 5_000 && frees_ms <= admitted_ms + 5_002 + late, "{skew_ms}: {frees_ms}");
        let agrees = told.reset_s.abs_diff(now_ms / 1_000 + told.retry_after_s);
        assert!(agrees <= 1 + late / 1_000, "{skew_ms}: {told:?} at {now_ms}");
    }
}

#[tokio::test]
async fn a_report_is_on_the_clock_of_the_instance_too() {
    let subject = Subject::redis().await;
    let Subject::Redis { redis, .. } = &subject else { unreachable!() };
    let (plan, now_ms) = (plan(&[(1, 50_000)]), unix_ms());
    set_clock(redis, "t", now_ms as i64 - 600_000).await;
    let asked = LimitSubject { token_id: "t", version: VERSION };
    let limiter = subject.limiter();
    assert!(
        matches!(limiter.decide(&asked, &plan, 1, now_ms, &|| true).await, Ok(LimitOutcome::Decided(it, _)) if it.admitted)
    );
    let report = limiter.peek(&asked, &plan, &[], now_ms).await.unwrap().unwrap();
    let late = (unix_ms() - now_ms) / 1_000;
    assert!(report.windows[0].next_slot_at.abs_diff(now_ms / 1_000 + 50) <= 1 + late, "{report:?} at {now_ms}");
}
