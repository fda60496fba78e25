//! The time of day as answers tell it (RFC 9110 §6.6.1): written down once a second on each thread.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

thread_local! {
    static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// The value of a `Date` header.
pub(super) fn now() -> HeaderValue {
    at(SystemTime::now())
}

fn at(now: SystemTime) -> HeaderValue {
    // A clock before 1970 counts as 1970.
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    LAST.with_borrow_mut(|last| match last {
        Some((at, value)) if *at == second => value.clone(),
        Some(_) | None => {
            let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            let value = HeaderValue::try_from(text).expect("a date is of letters and digits");
            last.insert((second, value)).1.clone()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_its_second() {
        let second = |second| UNIX_EPOCH + Duration::from_secs(second);
        assert_eq!(at(second(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(second(784_111_777) + Duration::from_millis(999)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(second(784_111_778)), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(at(UNIX_EPOCH - Duration::from_secs(1)), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
