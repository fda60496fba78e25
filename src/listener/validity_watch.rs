//! Lines in the log about certificates that end soon, have ended or are not valid yet.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::certificates::ValidityFault;

use super::tls::Certificates;

/// How often it looks. It reports each certificate once a day.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Reports faults of the certificates' time: at start, daily, and when certificates are exchanged.
#[derive(Debug, Default)]
pub(crate) struct ValidityWatch {
    /// What was reported. A fault counts its days, so that it is another one tomorrow.
    reported: Mutex<HashSet<(PathBuf, ValidityFault)>>,
}

impl ValidityWatch {
    /// Looks at whatever certificates are current, at once and then every hour. Never returns.
    pub(crate) async fn run(self: Arc<Self>, current: impl Fn() -> Vec<Arc<Certificates>>) {
        let mut tick = tokio::time::interval(INTERVAL);
        loop {
            tick.tick().await;
            self.report(&current(), SystemTime::now());
        }
    }

    /// Reports the faults of these certificates that were not reported yet.
    pub(crate) fn report(&self, certificates: &[Arc<Certificates>], now: SystemTime) {
        for (file, fault) in self.news(certificates, now) {
            let certificate = file.display();
            match fault {
                ValidityFault::EndsSoon { days, .. } => tracing::warn!(
                    %certificate, days_left = days, "the certificate {certificate} {fault}: renew it before that day"
                ),
                ValidityFault::Expired { .. } => {
                    tracing::error!(%certificate, "the certificate {certificate} {fault}, so renew it now");
                }
                ValidityFault::NotYetValid { .. } => tracing::error!(
                    %certificate, "the certificate {certificate} {fault} (is the clock of this machine right?)"
                ),
            }
        }
    }

    fn news(&self, certificates: &[Arc<Certificates>], now: SystemTime) -> Vec<(PathBuf, ValidityFault)> {
        let validities = certificates.iter().flat_map(|certificates| certificates.validities());
        let faults = validities.filter_map(|(file, validity)| Some((file.to_owned(), validity.fault(now)?)));
        let faults: HashSet<_> = faults.collect();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news: Vec<_> = faults.difference(&reported).cloned().collect();
        *reported = faults;
        news.sort_by(|(a, _), (b, _)| a.cmp(b));
        news
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::config::CertificateFiles;

    const DAY: u64 = 86_400;

    #[test]
    fn a_certificate_is_reported_once_a_day_from_fourteen_days_before_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let issue = |from: u64, to: u64| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            let time = |day: u64| (UNIX_EPOCH + Duration::from_secs(day * DAY)).into();
            (params.not_before, params.not_after) = (time(from), time(to));
            std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
            std::fs::write(&files.key, key.serialize_pem()).unwrap();
            [Arc::new(Certificates::load(std::slice::from_ref(&files)).unwrap())]
        };
        let (watch, certificates) = (ValidityWatch::default(), issue(10, 100));
        let at = |hours: u64| UNIX_EPOCH + Duration::from_secs(hours * 3600);
        let news = |certificates: &[Arc<Certificates>], hours: u64| {
            let news = watch.news(certificates, at(hours));
            news.into_iter().map(|(_, fault)| fault.to_string()).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(
            news(&certificates, 9 * 24),
            "becomes valid on 1970-01-11T00:00:00Z, in 1 day: until then clients refuse it"
        );
        assert_eq!(news(&certificates, 10 * 24), "");
        assert_eq!(news(&certificates, 86 * 24), "");
        let daily: Vec<String> = (86 * 24 + 1..102 * 24).map(|hours| news(&certificates, hours)).collect();
        let daily: Vec<&String> = daily.iter().filter(|news| !news.is_empty()).collect();
        assert_eq!(daily.len(), 14 + 2, "{daily:#?}");
        assert_eq!(daily[0], "expires on 1970-04-11T00:00:00Z, in 13 days");
        assert_eq!(daily[13], "expires on 1970-04-11T00:00:00Z, in less than a day");
        assert_eq!(daily[15], "expired on 1970-04-11T00:00:00Z, 1 day ago: clients refuse it");
        // Another certificate in the same file, with as many days.
        assert_eq!(news(&issue(10, 90), 95 * 24), "expired on 1970-04-01T00:00:00Z, 5 days ago: clients refuse it");
        assert_eq!(news(&issue(10, 200), 95 * 24), "");
    }
}
