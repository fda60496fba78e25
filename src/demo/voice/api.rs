//! The endpoints of the sample API: paths, methods and what each does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::call::{CallId, CallRequest};
use super::response::{DemoError, DemoResponse, FieldErrors, empty_response, json_response};
use super::service::VoiceService;
use super::{audio, events, recordings, request_body};

const DEFAULT_PAGE_SIZE: usize = 20;
const MAX_PAGE_SIZE: usize = 100;

pub(super) async fn respond(service: Arc<VoiceService>, request: Request<Incoming>) -> DemoResponse {
    dispatch(service, request).await.unwrap_or_else(|error| error.response())
}

async fn dispatch(service: Arc<VoiceService>, mut request: Request<Incoming>) -> Result<DemoResponse, DemoError> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let segments: Vec<&str> = path.split('/').collect();
    let methods: &[Method] = match segments[1..] {
        ["api", "v1", "calls"] => &[Method::GET, Method::HEAD, Method::POST],
        ["api", "v1", "calls", _] => &[Method::GET, Method::HEAD, Method::DELETE],
        ["api", "v1", "recordings"] => &[Method::POST],
        ["healthz"] | ["api", "v1", ..] => &[Method::GET, Method::HEAD],
        _ => return Err(DemoError::NoSuchPath),
    };
    let call_id = |text: &str| CallId::parse(text).ok_or(DemoError::NoSuchCall);
    match segments[1..] {
        _ if !methods.contains(&method) => Err(DemoError::MethodNotAllowed(methods)),
        ["healthz"] => Ok(json_response(StatusCode::OK, &json!({ "status": "ok" }))),
        [_, _, "whoami"] => Ok(whoami(request.headers())),
        [_, _, "calls"] if method == Method::POST => place_call(&service, request).await,
        [_, _, "calls"] => list_calls(&service, request.uri().query().unwrap_or("")),
        [_, _, "calls", id] if method == Method::DELETE => {
            let id = call_id(id)?;
            service.update(|calls| calls.hang_up(id, SystemTime::now()))?;
            Ok(empty_response(StatusCode::NO_CONTENT))
        }
        [_, _, "calls", id] => Ok(json_response(StatusCode::OK, service.calls().get(call_id(id)?)?)),
        [_, _, "calls", id, "events"] => {
            let id = service.calls().get(call_id(id)?)?.id;
            Ok(events::open(service, Some(id), request.headers()))
        }
        [_, _, "calls", id, "stream"] => audio::open(&service, call_id(id)?, &mut request),
        [_, _, "events"] => Ok(events::open(service, None, request.headers())),
        [_, _, "recordings"] => recordings::receive(request.into_body()).await,
        [_, _, "recordings", length] => recordings::send(length),
        _ => Err(DemoError::NoSuchPath),
    }
}

/// Shows what a gateway sends about the client: the identity headers, and whether it forwards the token itself.
fn whoami(headers: &HeaderMap) -> DemoResponse {
    let identity = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-callgate-"));
    let identity: BTreeMap<_, _> =
        identity.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))).collect();
    let body = json!({ "headers": identity, "authorization_received": headers.contains_key(AUTHORIZATION) });
    json_response(StatusCode::OK, &body)
}

async fn place_call(service: &VoiceService, request: Request<Incoming>) -> Result<DemoResponse, DemoError> {
    let requested = CallRequest::parse(&request_body::read_json(request).await?)?;
    let call = service.update(|calls| calls.place(requested, SystemTime::now()));
    let mut response = json_response(StatusCode::CREATED, &call);
    let location = HeaderValue::from_str(&format!("/api/v1/calls/{}", call.id)).expect("an id is visible ASCII");
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn list_calls(service: &VoiceService, query: &str) -> Result<DemoResponse, DemoError> {
    let ListQuery { limit, before } = ListQuery::parse(query)?;
    let (calls, more) = service.calls().page(before, limit);
    let next = calls.last().filter(|_| more).map(|call| call.id);
    Ok(json_response(StatusCode::OK, &json!({ "data": calls, "next_before": next })))
}

#[derive(Debug, PartialEq, Eq)]
struct ListQuery {
    limit: usize,
    before: Option<CallId>,
}

impl ListQuery {
    /// Valid values need no percent-encoding, so none is decoded. Parameters of other names are ignored.
    fn parse(query: &str) -> Result<Self, DemoError> {
        let mut list = Self { limit: DEFAULT_PAGE_SIZE, before: None };
        let mut errors = FieldErrors::new();
        let mut report = |field, message| drop(errors.insert(field, vec![message]));
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "limit" => match value.parse() {
                    Ok(limit) if (1..=MAX_PAGE_SIZE).contains(&limit) => list.limit = limit,
                    _ => report("limit", format!("The limit must be a number from 1 to {MAX_PAGE_SIZE}.")),
                },
                "before" => match CallId::parse(value) {
                    Some(id) => list.before = Some(id),
                    None => report("before", "The before value must be the id of a call.".to_owned()),
                },
                _ => {}
            }
        }
        if errors.is_empty() { Ok(list) } else { Err(DemoError::Invalid(errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_query_reports_all_errors_at_once() {
        let list = |limit, before| ListQuery { limit, before };
        assert_eq!(ListQuery::parse(""), Ok(list(DEFAULT_PAGE_SIZE, None)));
        assert_eq!(ListQuery::parse("x=1&limit=100&before=call_3"), Ok(list(100, Some(CallId(3)))));
        for query in ["limit=0", "limit=101", "limit=", "limit", "limit=-1", "limit=1%30", "before=", "before=7"] {
            assert!(matches!(ListQuery::parse(query), Err(DemoError::Invalid(_))), "{query}");
        }
        let Err(DemoError::Invalid(errors)) = ListQuery::parse("limit=0&before=x") else { panic!("it is invalid") };
        assert_eq!(errors.len(), 2);
    }
}
