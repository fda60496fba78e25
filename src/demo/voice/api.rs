//! The API: which resource a path names, which methods it takes, and what each does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::Voice;
use super::answer::{Answer, empty_answer, json_answer};
use super::call::CallId;
use super::exchange::Scope;
use super::order::Order;
use super::problem::{FieldErrors, Problem};
use super::{feed, intake, recordings, stream};

/// Calls on a page of the list, unless asked otherwise, and at most.
const PAGE: usize = 20;
const LONGEST_PAGE: usize = 100;

/// Answers one request.
pub(super) async fn respond(voice: Arc<Voice>, request: Request<Incoming>) -> Answer {
    dispatch(voice, request).await.unwrap_or_else(|problem| problem.answer())
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Resource {
    Health,
    Whoami,
    Calls,
    Call(CallId),
    CallEvents(CallId),
    Stream(CallId),
    Events,
    Recordings,
    Recording(Box<str>),
}

impl Resource {
    fn at(path: &str) -> Result<Self, Problem> {
        let call = |name: &str| CallId::parse(name).ok_or(Problem::NoSuchCall);
        if path == "/healthz" {
            return Ok(Self::Health);
        }
        let inside = path.strip_prefix("/api/v1/").ok_or(Problem::NoSuchPath)?;
        let segments: Vec<&str> = inside.split('/').collect();
        match segments.as_slice() {
            ["whoami"] => Ok(Self::Whoami),
            ["calls"] => Ok(Self::Calls),
            ["calls", name] => call(name).map(Self::Call),
            ["calls", name, "events"] => call(name).map(Self::CallEvents),
            ["calls", name, "stream"] => call(name).map(Self::Stream),
            ["events"] => Ok(Self::Events),
            ["recordings"] => Ok(Self::Recordings),
            ["recordings", length] => Ok(Self::Recording((*length).into())),
            _ => Err(Problem::NoSuchPath),
        }
    }

    fn methods(&self) -> &'static [Method] {
        match self {
            Self::Calls => &[Method::GET, Method::HEAD, Method::POST],
            Self::Call(_) => &[Method::GET, Method::HEAD, Method::DELETE],
            Self::Recordings => &[Method::POST],
            Self::Health | Self::Whoami | Self::CallEvents(_) | Self::Stream(_) | Self::Events | Self::Recording(_) => {
                &[Method::GET, Method::HEAD]
            }
        }
    }
}

async fn dispatch(voice: Arc<Voice>, mut request: Request<Incoming>) -> Result<Answer, Problem> {
    let resource = Resource::at(request.uri().path())?;
    if !resource.methods().contains(request.method()) {
        return Err(Problem::Method(resource.methods()));
    }
    match resource {
        Resource::Health => Ok(json_answer(StatusCode::OK, &json!({ "status": "ok" }))),
        Resource::Whoami => Ok(whoami(request.headers())),
        Resource::Calls if request.method() == Method::POST => place(&voice, request).await,
        Resource::Calls => list(&voice, request.uri().query().unwrap_or("")),
        Resource::Call(id) if request.method() == Method::DELETE => hang_up(&voice, id),
        Resource::Call(id) => show(&voice, id),
        Resource::CallEvents(id) => {
            voice.look(|exchange| exchange.call(id).map(drop)).ok_or(Problem::NoSuchCall)?;
            Ok(feed::open(voice, Scope::Call(id), request.headers()))
        }
        Resource::Stream(id) => stream::open(&voice, id, &mut request),
        Resource::Events => Ok(feed::open(voice, Scope::All, request.headers())),
        Resource::Recordings => recordings::receive(request.into_body()).await,
        Resource::Recording(length) => recordings::send(&length),
    }
}

/// Shows what a gateway told this upstream of the client: the identity headers, and whether the token itself came along.
fn whoami(headers: &HeaderMap) -> Answer {
    let mut identity: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with("x-callgate-")) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let known = identity.entry(name.as_str()).or_default();
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(&value);
    }
    let body = json!({ "headers": identity, "authorization_received": headers.contains_key(AUTHORIZATION) });
    json_answer(StatusCode::OK, &body)
}

async fn place(voice: &Voice, request: Request<Incoming>) -> Result<Answer, Problem> {
    let order = Order::parse(&intake::read_json(request).await?)?;
    let call = voice.change(|exchange| exchange.place(order, SystemTime::now()));
    let mut answer = json_answer(StatusCode::CREATED, &call);
    let location = HeaderValue::from_str(&format!("/api/v1/calls/{}", call.id)).expect("an id is visible ASCII");
    answer.headers_mut().insert(LOCATION, location);
    Ok(answer)
}

fn list(voice: &Voice, query: &str) -> Result<Answer, Problem> {
    let Page { limit, before } = Page::parse(query)?;
    let (calls, more) = voice.look(|exchange| exchange.page(before, limit));
    let next = calls.last().filter(|_| more).map(|call| call.id);
    Ok(json_answer(StatusCode::OK, &json!({ "data": calls, "next_before": next })))
}

fn show(voice: &Voice, id: CallId) -> Result<Answer, Problem> {
    let call = voice.look(|exchange| exchange.call(id).cloned()).ok_or(Problem::NoSuchCall)?;
    Ok(json_answer(StatusCode::OK, &call))
}

fn hang_up(voice: &Voice, id: CallId) -> Result<Answer, Problem> {
    voice.change(|exchange| exchange.hang_up(id, SystemTime::now())).map_err(|_| Problem::NoSuchCall)?;
    Ok(empty_answer(StatusCode::NO_CONTENT))
}

/// A page of the list.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: usize,
    before: Option<CallId>,
}

impl Page {
    /// Reads a query. Good values need no escapes, so none are decoded; parameters of other names are passed over.
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut page = Self { limit: PAGE, before: None };
        let mut errors = FieldErrors::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "limit" => match value.parse() {
                    Ok(limit) if (1..=LONGEST_PAGE).contains(&limit) => page.limit = limit,
                    _ => errors.add("limit", format!("The limit must be a number from 1 to {LONGEST_PAGE}.")),
                },
                "before" => match CallId::parse(value) {
                    Some(id) => page.before = Some(id),
                    None => errors.add("before", "The before value must be the id of a call.".into()),
                },
                _ => {}
            }
        }
        if errors.is_empty() { Ok(page) } else { Err(Problem::Invalid(errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resources_exactly() {
        assert_eq!(Resource::at("/api/v1/calls/call_7/stream").unwrap(), Resource::Stream(CallId(7)));
        for path in ["/", "", "/api/v1", "/api/v1/", "/api/v1/calls/", "/api/v1//calls", "/healthz/", "/api/v2/calls"] {
            assert!(Resource::at(path).is_err(), "{path:?}");
        }
        assert!(matches!(Resource::at("/api/v1/calls/7"), Err(Problem::NoSuchCall)));
    }

    #[test]
    fn a_page_says_all_that_is_wrong_with_it() {
        assert_eq!(Page::parse("").unwrap(), Page { limit: PAGE, before: None });
        assert_eq!(Page::parse("x=1&limit=100&before=call_3").unwrap(), Page { limit: 100, before: Some(CallId(3)) });
        for query in ["limit=0", "limit=101", "limit=", "limit", "limit=-1", "limit=1%30", "before=", "before=7"] {
            assert!(matches!(Page::parse(query), Err(Problem::Invalid(_))), "{query}");
        }
        let Err(Problem::Invalid(errors)) = Page::parse("limit=0&before=x") else { panic!("it is invalid") };
        assert_eq!(serde_json::to_value(&errors).unwrap().as_object().unwrap().len(), 2);
    }
}
