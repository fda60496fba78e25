//! The OpenAPI description of the admin API, written by hand beside this file; a test compares it with the router.

use http::StatusCode;

use super::error::ApiError;
use super::request::ApiRequest;
use super::response::{AdminResponse, response};
use crate::config::Config;

/// `GET /api/openapi.json`
pub(super) async fn describe(request: ApiRequest<'_>) -> Result<AdminResponse, ApiError> {
    Ok(response(StatusCode::OK, "application/json", description(&request.backend.config)))
}

/// The description, with this version and the plans of this configuration.
fn description(config: &Config) -> String {
    // Names of plans are plain words, so Rust's quotes are JSON's.
    let plans: Vec<String> = config.plans.keys().map(|name| format!("{name:?}")).collect();
    let text = include_str!("openapi.json").replace("\"PLANS\"", &plans.join(", "));
    text.replace("VERSION", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::super::body::BodyKind;
    use super::super::router::{ApiRoute, ROUTES, RequiredAccess};
    use super::*;

    fn parsed() -> Value {
        let text = "tls: { certificates: [] }\ntokens: { file: a }\nplans: { gold: { limits: {} } }\nroutes: [{ path: /, upstream: a }]\n\
                    upstreams: { a: { endpoints: [\"http://a\"] } }";
        let text = text.replace("certificates: []", "certificates: [{ cert: a, key: a }]");
        let loaded = crate::config::parse("a.yaml".as_ref(), &text, &|_| None).unwrap();
        serde_json::from_slice(description(&loaded.config).as_bytes()).unwrap()
    }

    /// Follows a `$ref`.
    fn resolved<'a>(whole: &'a Value, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(place) => whole.pointer(place.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("no {place}")),
            None => value,
        }
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let whole = parsed();
        let mut described = BTreeMap::new();
        for (path, methods) in whole["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                described.insert((method.to_uppercase(), path.clone()), operation);
            }
        }
        let routed: BTreeSet<_> = ROUTES.iter().map(|it| (it.method.to_string(), it.path.to_owned())).collect();
        assert_eq!(routed, described.keys().cloned().collect());
        for route in &ROUTES {
            let key = (route.method.to_string(), route.path.to_owned());
            agrees(&whole, route, described[&key]);
        }
    }

    /// Roles, parameters, bodies and answers are those of the router.
    fn agrees(whole: &Value, route: &ApiRoute, operation: &Value) {
        let name = &operation["operationId"];
        let security = &operation["security"];
        match route.access {
            RequiredAccess::Public => assert_eq!(security.as_array().map(Vec::len), Some(0), "{name}"),
            RequiredAccess::Metrics => assert_eq!(security[0]["admin_token"][0], "read", "{name}"),
            RequiredAccess::Role(role) => assert_eq!(security[0]["admin_token"][0], role.as_str(), "{name}"),
        }
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none);
        let within = |place: &str| -> BTreeSet<&str> {
            let all = parameters.iter().map(|it| resolved(whole, it)).filter(|it| it["in"] == place);
            all.map(|it| it["name"].as_str().unwrap()).collect()
        };
        assert_eq!(within("query"), route.query.iter().copied().collect(), "{name}");
        assert_eq!(within("path").contains("id"), route.path.contains("{id}"), "{name}");
        let body = &operation["requestBody"];
        match route.body {
            BodyKind::Nothing => assert!(body.is_null(), "{name}"),
            BodyKind::Json(_) => assert_eq!(body["required"], true, "{name}"),
            BodyKind::OptionalJson(_) => assert_eq!(body["required"], false, "{name}"),
        }
        let answers: BTreeSet<&str> = operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut needed = BTreeSet::from(["200"]);
        if route.access != RequiredAccess::Public {
            needed.extend(["400", "401", "403", "429"]);
        }
        if route.body != BodyKind::Nothing {
            needed.extend(["408", "413", "415", "422"]);
        }
        if route.path.contains("{id}") {
            let has_conflicts =
                !["/api/tokens/{id}", "/api/tokens/{id}/usage", "/api/calls/{id}"].contains(&route.path);
            needed.extend(["404", "409"].iter().filter(|_| has_conflicts));
        }
        assert!(answers.is_superset(&needed), "{name}: {needed:?}");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_part_is_used() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str));
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let whole = parsed();
        let mut used = BTreeSet::new();
        references(&whole, &mut used);
        for place in &used {
            assert!(whole.pointer(place.strip_prefix('#').unwrap()).is_some(), "{place} is not there");
        }
        for kind in ["schemas", "responses", "parameters"] {
            for name in whole["components"][kind].as_object().unwrap().keys() {
                assert!(used.contains(format!("#/components/{kind}/{name}").as_str()), "{kind} {name} is not used");
            }
        }
        assert_eq!(whole["components"]["schemas"]["Plan"]["enum"], serde_json::json!(["gold", null]));
        assert_eq!(whole["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
