//! The table of routes: path template and method -> endpoint. Pure.

use http::{HeaderValue, Method, StatusCode, header};
use matchit::Router;

use super::input::percent_decoded;
use super::problem::Problem;

/// The path label of requests that match no route.
pub const NO_ROUTE: &str = "other";

/// What can be asked for. `Thresholds` reads, `SetThresholds` changes, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Index,
    Metrics,
    Healthy,
    Ready,
    Reload,
    Status,
    Start,
    Stop,
    Thresholds,
    SetThresholds,
    DropThresholds,
    ScaleUp,
    ScaleDown,
    Rebalance,
    Maintain,
    EndMaintenance,
    Drain,
    OpenAgain,
    History,
    Observations,
    Analytics,
    Decisions,
    Decision,
    Operations,
    Operation,
    Cancel,
    Pause,
    Resume,
    Retry,
    Resolve,
    Adopt,
    Reap,
    ResetBreaker,
    Plan,
    Targets,
    Alertmanager,
}

type Methods = &'static [(Method, Endpoint)];

/// Every route of the main listener.
const MAIN: &[(&str, Methods)] = &[
    ("/", &[(Method::GET, Endpoint::Index)]),
    ("/metrics", &[(Method::GET, Endpoint::Metrics)]),
    ("/-/healthy", &[(Method::GET, Endpoint::Healthy)]),
    ("/-/ready", &[(Method::GET, Endpoint::Ready)]),
    ("/-/reload", &[(Method::POST, Endpoint::Reload), (Method::PUT, Endpoint::Reload)]),
    ("/autoscaling/status", &[(Method::GET, Endpoint::Status)]),
    ("/autoscaling/start", &[(Method::POST, Endpoint::Start)]),
    ("/autoscaling/stop", &[(Method::POST, Endpoint::Stop)]),
    (
        "/autoscaling/thresholds",
        &[
            (Method::GET, Endpoint::Thresholds),
            (Method::POST, Endpoint::SetThresholds),
            (Method::DELETE, Endpoint::DropThresholds),
        ],
    ),
    ("/autoscaling/scale-up", &[(Method::POST, Endpoint::ScaleUp)]),
    ("/autoscaling/scale-down", &[(Method::POST, Endpoint::ScaleDown)]),
    ("/autoscaling/rebalance", &[(Method::POST, Endpoint::Rebalance)]),
    (
        "/autoscaling/nodes/{id}/maintenance",
        &[(Method::POST, Endpoint::Maintain), (Method::DELETE, Endpoint::EndMaintenance)],
    ),
    ("/autoscaling/nodes/{id}/drain", &[(Method::POST, Endpoint::Drain), (Method::DELETE, Endpoint::OpenAgain)]),
    ("/autoscaling/nodes/{id}/adopt", &[(Method::POST, Endpoint::Adopt)]),
    ("/autoscaling/nodes/{id}/reap", &[(Method::POST, Endpoint::Reap)]),
    ("/autoscaling/history", &[(Method::GET, Endpoint::History)]),
    ("/autoscaling/metrics", &[(Method::GET, Endpoint::Observations)]),
    ("/autoscaling/analytics", &[(Method::GET, Endpoint::Analytics)]),
    ("/autoscaling/decisions", &[(Method::GET, Endpoint::Decisions)]),
    ("/autoscaling/decisions/{id}", &[(Method::GET, Endpoint::Decision)]),
    ("/autoscaling/operations", &[(Method::GET, Endpoint::Operations)]),
    ("/autoscaling/operations/{id}", &[(Method::GET, Endpoint::Operation)]),
    ("/autoscaling/operations/{id}/cancel", &[(Method::POST, Endpoint::Cancel)]),
    ("/autoscaling/operations/{id}/pause", &[(Method::POST, Endpoint::Pause)]),
    ("/autoscaling/operations/{id}/resume", &[(Method::POST, Endpoint::Resume)]),
    ("/autoscaling/operations/{id}/retry", &[(Method::POST, Endpoint::Retry)]),
    ("/autoscaling/operations/{id}/resolve", &[(Method::POST, Endpoint::Resolve)]),
    ("/autoscaling/breaker/reset", &[(Method::POST, Endpoint::ResetBreaker)]),
    ("/autoscaling/plan", &[(Method::GET, Endpoint::Plan)]),
    ("/autoscaling/targets", &[(Method::GET, Endpoint::Targets)]),
    ("/webhooks/alertmanager", &[(Method::POST, Endpoint::Alertmanager)]),
];

/// What the read-only listener serves.
const TELEMETRY: [&str; 4] = ["/metrics", "/-/healthy", "/-/ready", "/autoscaling/targets"];

/// A table of routes, ready to be asked.
pub struct Routes(Router<(&'static str, Methods)>);

/// A request's way: the route's template for labels, and what to do.
#[derive(Clone, Debug)]
pub struct Found {
    pub template: &'static str,
    pub endpoint: Result<Endpoint, Problem>,
    /// The `{id}` of the path, decoded; empty where the route has none.
    pub id: String,
}

impl Routes {
    pub fn main() -> Routes {
        Routes::of(|_| true)
    }

    pub fn telemetry() -> Routes {
        Routes::of(|template| TELEMETRY.contains(&template))
    }

    fn of(wanted: impl Fn(&str) -> bool) -> Routes {
        let mut router = Router::new();
        for (template, methods) in MAIN.iter().filter(|(template, _)| wanted(template)) {
            router.insert(*template, (*template, *methods)).expect("the routes do not overlap");
        }
        Routes(router)
    }

    /// Path templates of the main table, which holds all.
    pub fn templates() -> impl Iterator<Item = &'static str> {
        MAIN.iter().map(|(template, _)| *template).chain([NO_ROUTE])
    }

    /// HEAD is GET without a body; the HTTP layer drops that.
    pub fn find(&self, method: &Method, path: &str) -> Found {
        let nothing =
            |detail: String| Found { template: NO_ROUTE, endpoint: Err(Problem::not_found(detail)), id: String::new() };
        let Ok(matched) = self.0.at(path) else {
            return nothing("no such path here; / lists what there is".into());
        };
        let (template, methods) = *matched.value;
        let Some(id) = percent_decoded(matched.params.get("id").unwrap_or_default()) else {
            return nothing("the path is not percent-encoded UTF-8".into());
        };
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let endpoint = methods.iter().find(|(m, _)| m == method).map(|(_, endpoint)| *endpoint);
        Found { template, endpoint: endpoint.ok_or_else(|| not_allowed(template, methods)), id }
    }
}

fn not_allowed(template: &str, methods: Methods) -> Problem {
    let mut allowed: Vec<&str> = methods.iter().map(|(m, _)| m.as_str()).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    let allowed = allowed.join(", ");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{template} takes {allowed}"))
        .with_header(header::ALLOW, HeaderValue::from_str(&allowed).expect("method names are header values"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_own_path() {
        let routes = Routes::main();
        for (template, methods) in MAIN {
            for (method, endpoint) in *methods {
                let found = routes.find(method, &template.replace("{id}", "n%31"));
                assert_eq!(found.endpoint.expect(template), *endpoint, "{method} {template}");
                assert_eq!(found.template, *template);
                assert_eq!(found.id, if template.contains("{id}") { "n1" } else { "" }, "{template}");
            }
        }
    }

    #[test]
    fn the_telemetry_table_changes_nothing() {
        let routes = Routes::telemetry();
        for (template, methods) in MAIN {
            for (method, _) in *methods {
                let found = routes.find(method, &template.replace("{id}", "n1")).endpoint.is_ok();
                assert_eq!(found, TELEMETRY.contains(template), "{method} {template}");
                assert!(!found || method == Method::GET, "{method} {template}");
            }
        }
    }
}
