//! One request to the admin API, authorized and read.

use http::HeaderMap;

use super::access::Caller;
use super::backend::AdminBackend;
use super::error::ApiError;
use super::fields::Fields;
use super::if_match::IfMatch;
use crate::tokens::ActionContext;

pub(super) struct ApiRequest<'a> {
    pub(super) backend: &'a AdminBackend,
    /// The sender.
    pub(super) caller: Caller,
    /// The same with the time, for the audit trail.
    pub(super) by: ActionContext,
    /// The `{id}` in the path; empty if it has none.
    pub(super) id: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) query: Fields,
    pub(super) body: Fields,
}

impl ApiRequest<'_> {
    /// The version that `If-Match` demands; `None`: any.
    pub(super) async fn expected_version(&self) -> Result<Option<u64>, ApiError> {
        let versions = match IfMatch::parse(self.headers)? {
            IfMatch::Absent | IfMatch::Any => return Ok(None),
            IfMatch::OneOf(versions) => versions,
        };
        match versions[..] {
            [version] => Ok(Some(version)),
            [] => Err(ApiError::Stale(None)),
            _ => {
                let current = self.backend.registry.find(self.id).await?.version;
                if versions.contains(&current) { Ok(Some(current)) } else { Err(ApiError::Stale(Some(current))) }
            }
        }
    }
}
