//! The OpenAPI description of the admin API, written by hand beside this file; a test keeps it and the router to each other.

use bytes::Bytes;
use http::StatusCode;

use super::answer::{Answer, page};
use crate::config::Config;

const WRITTEN: &str = include_str!("openapi.json");

/// The description, with this version and the plans of this configuration.
pub(super) struct Description(Bytes);

impl Description {
    pub(super) fn new(config: &Config) -> Self {
        // Names of plans are plain words, so Rust's quotes are JSON's.
        let plans: Vec<String> = config.plans.keys().map(|name| format!("{name:?}")).collect();
        let text = WRITTEN.replace("\"PLANS\"", &plans.join(", ")).replace("VERSION", env!("CARGO_PKG_VERSION"));
        Self(text.into())
    }

    pub(super) fn answer(&self) -> Answer {
        page(StatusCode::OK, "application/json", self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::super::router::{ENDPOINTS, Endpoint, Needs, Takes};
    use super::*;

    fn description() -> Value {
        let text = "tls: { certificates: [] }\ntokens: { file: a }\nplans: { gold: { limits: {} } }\nroutes: [{ path: /, upstream: a }]\n\
                    upstreams: { a: { endpoints: [\"http://a\"] } }";
        let text = text.replace("certificates: []", "certificates: [{ cert: a, key: a }]");
        let loaded = crate::config::parse("a.yaml".as_ref(), &text, &|_| None).unwrap();
        serde_json::from_slice(&Description::new(&loaded.config).0).unwrap()
    }

    /// Follows a `$ref`.
    fn resolved<'a>(whole: &'a Value, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(place) => whole.pointer(place.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("no {place}")),
            None => value,
        }
    }

    #[test]
    fn every_endpoint_is_described_and_nothing_else() {
        let whole = description();
        let mut described = BTreeMap::new();
        for (path, methods) in whole["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                described.insert((method.to_uppercase(), path.clone()), operation);
            }
        }
        let routed: BTreeSet<_> = ENDPOINTS.iter().map(|it| (it.method.to_string(), it.path.to_owned())).collect();
        assert_eq!(routed, described.keys().cloned().collect());
        for endpoint in &ENDPOINTS {
            let key = (endpoint.method.to_string(), endpoint.path.to_owned());
            agrees(&whole, endpoint, described[&key]);
        }
    }

    /// Roles, parameters, bodies and answers are those of the router.
    fn agrees(whole: &Value, endpoint: &Endpoint, operation: &Value) {
        let name = &operation["operationId"];
        let security = &operation["security"];
        match endpoint.needs {
            Needs::Nothing => assert_eq!(security.as_array().map(Vec::len), Some(0), "{name}"),
            Needs::Metrics => assert_eq!(security[0]["admin_token"][0], "read", "{name}"),
            Needs::Role(role) => assert_eq!(security[0]["admin_token"][0], role.as_str(), "{name}"),
        }
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none);
        let within = |place: &str| -> BTreeSet<&str> {
            let all = parameters.iter().map(|it| resolved(whole, it)).filter(|it| it["in"] == place);
            all.map(|it| it["name"].as_str().unwrap()).collect()
        };
        assert_eq!(within("query"), endpoint.query.iter().copied().collect(), "{name}");
        assert_eq!(within("path").contains("id"), endpoint.path.contains("{id}"), "{name}");
        let body = &operation["requestBody"];
        match endpoint.takes {
            Takes::Nothing => assert!(body.is_null(), "{name}"),
            Takes::Json(_) => assert_eq!(body["required"], true, "{name}"),
            Takes::JsonIfAny(_) => assert_eq!(body["required"], false, "{name}"),
        }
        let answers: BTreeSet<&str> = operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut needed = BTreeSet::from(["200"]);
        if endpoint.needs != Needs::Nothing {
            needed.extend(["400", "401", "403", "429"]);
        }
        if endpoint.takes != Takes::Nothing {
            needed.extend(["408", "413", "415", "422"]);
        }
        if endpoint.path.contains("{id}") {
            needed.extend(["404", "409"].iter().filter(|_| endpoint.path != "/api/tokens/{id}"));
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
        let whole = description();
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
