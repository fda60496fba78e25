//! How tokens are used over time, and which are limited the most.

use http::StatusCode;
use serde_json::{Value, json};

use super::error::ApiError;
use super::fields::{BY_TIME, ByTime, DEFAULT_PAGE, PAGE_SIZE};
use super::request::ApiRequest;
use super::response::{AdminResponse, json_response};
use crate::tokens::{Date, Hour, HourUsage};

/// `GET /api/tokens/{id}/usage`
pub(super) async fn show(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let by = request.query.get("by", &BY_TIME).unwrap_or(ByTime::Day);
    request.query.finish()?;
    let now = request.by.now;
    let hours = request.backend.registry.usage_by_hour(request.id, now).await?;
    let body = json!({
        "id": request.id,
        "by": by.as_str(),
        "since": Date::new(Hour::of(now).oldest_kept().begin()),
        "until": Date::new(now),
        "buckets": buckets(&hours, by),
    });
    Ok(json_response(StatusCode::OK, &body))
}

/// `GET /api/most-limited`
pub(super) async fn most_limited(mut request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    let limit = request.query.get("limit", &PAGE_SIZE).unwrap_or(DEFAULT_PAGE);
    request.query.finish()?;
    let backend = request.backend;
    let most = backend.registry.most_refused(&backend.usage, limit, request.by.now).await?;
    let tokens: Value = most.iter().map(|(id, refused)| json!({ "id": &**id, "refused": refused })).collect();
    Ok(json_response(StatusCode::OK, &json!({ "window_seconds": 3_600, "tokens": tokens })))
}

/// The hours, or the days that they add up to.
fn buckets(hours: &[HourUsage], by: ByTime) -> Vec<Value> {
    let mut buckets: Vec<HourUsage> = Vec::new();
    for usage in hours {
        let hour = if by == ByTime::Day { usage.hour.day() } else { usage.hour };
        match buckets.last_mut().filter(|last| last.hour == hour) {
            Some(last) => {
                last.admitted += usage.admitted;
                last.refused += usage.refused;
            }
            None => buckets.push(HourUsage { hour, ..*usage }),
        }
    }
    let bucket =
        |it: HourUsage| json!({ "at": Date::new(it.hour.begin()), "admitted": it.admitted, "refused": it.refused });
    buckets.into_iter().map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn hours_add_up_to_days() {
        let usage = |hour: u64, admitted| HourUsage {
            hour: Hour::of(UNIX_EPOCH + Duration::from_secs(hour * 3_600)),
            admitted,
            refused: 1,
        };
        let hours = [usage(22, 1), usage(23, 2), usage(24, 4), usage(72, 8)];
        let at = |buckets: Vec<Value>| {
            let each =
                buckets.iter().map(|it| format!("{} {} {}", it["at"].as_str().unwrap(), it["admitted"], it["refused"]));
            each.collect::<Vec<_>>()
        };
        let days = ["1970-01-01T00:00:00Z 3 2", "1970-01-02T00:00:00Z 4 1", "1970-01-04T00:00:00Z 8 1"];
        assert_eq!(at(buckets(&hours, ByTime::Day)), days);
        assert_eq!(at(buckets(&hours, ByTime::Hour))[1], "1970-01-01T23:00:00Z 2 1");
    }
}
