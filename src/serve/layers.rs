//! What every request passes: route, access, body, time limit, a net for panics, counting. IO.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tower::{Service, ServiceExt};
use tower_http::catch_panic::{CatchPanic, ResponseForPanic};
use tower_http::timeout::Timeout;

use super::Server;
use super::access::{check_host, check_origin};
use super::auth::{Caller, InForce, Role, needed};
use super::problem::Problem;
use super::routes::{Endpoint, Found, Routes};
use crate::http::{Answer, BodyError, Handshake, Peer, read_body};
use crate::telemetry::Telemetry;

/// Longest time from the head of a request to its answer: above the time for a body, below a client's patience.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Largest body that is taken; a notification of thousands of alerts is larger than what a person sends.
const BODY_LIMIT: usize = 1 << 20;
const NOTIFICATION_LIMIT: usize = 4 << 20;

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Under which names a listener is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Local ones and the external URL's, nothing else.
    Checked,
    Any,
}

/// A request that has been let in, with its body.
pub struct Call {
    pub endpoint: Endpoint,
    /// The `{id}` of the path.
    pub id: String,
    pub caller: Caller,
    pub head: request::Parts,
    pub body: Bytes,
}

impl Call {
    /// Who asks, for the audit trail.
    pub fn who(&self) -> String {
        match (&self.caller.name, self.head.extensions.get::<Peer>()) {
            (Some(name), _) => name.clone(),
            (None, Some(Peer(address))) => format!("api {}", address.ip().to_canonical()),
            (None, None) => "api".into(),
        }
    }
}

pub fn stack(
    server: Arc<Server>,
    routes: Routes,
    names: Names,
) -> impl Service<Request<Incoming>, Response = Answer, Error = Infallible, Future: Send + 'static> + Clone + Send + 'static
{
    for template in Routes::templates() {
        server.telemetry.register_path(template);
    }
    let routes = Arc::new(routes);
    tower::service_fn(move |mut request: Request<Incoming>| {
        let (server, routes) = (server.clone(), routes.clone());
        async move {
            let began = tokio::time::Instant::now();
            let found = routes.find(request.method(), request.uri().path());
            let template = found.template;
            // Found before anything else is asked: who may come in depends on it.
            request.extensions_mut().insert(found);
            let access = server.access.in_force();
            request.extensions_mut().insert(access.clone());
            let outlived = !access.made(request.extensions().get::<Handshake>());
            let mut answer = guarded(server.clone(), names, template, request).await;
            if outlived {
                answer.headers_mut().insert(header::CONNECTION, CLOSE); // the next one gets a handshake of today
            }
            for (name, value) in &access.headers {
                answer.headers_mut().entry(name).or_insert_with(|| value.clone()); // a page that knows better says so
            }
            server.telemetry.http_served(template, answer.status().as_u16(), began.elapsed());
            Ok(answer)
        }
    })
}

/// Answers within the time limit, and answers even if a handler panics.
async fn guarded(server: Arc<Server>, names: Names, template: &'static str, request: Request<Incoming>) -> Answer {
    let fault = Fault { telemetry: server.telemetry.clone(), template };
    let handler = tower::service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(admit(&server, names, request).await) }
    });
    let limited = Timeout::with_status_code(handler, StatusCode::SERVICE_UNAVAILABLE, ANSWER_WITHIN);
    let Ok(answer) = CatchPanic::custom(limited, fault).oneshot(request).await;
    whole(answer).await
}

/// Takes the layers' body types back to ours. Only the time limit answers 503 without a word: it gets ours.
async fn whole<B>(answer: Response<B>) -> Answer
where
    B: hyper::body::Body<Data = Bytes>,
{
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    if head.status == StatusCode::SERVICE_UNAVAILABLE && body.is_empty() {
        let seconds = ANSWER_WITHIN.as_secs();
        return Problem::unavailable(format!(
            "no answer within {seconds} s: the controller is busy; look at the status before asking again"
        ))
        .into_answer();
    }
    Response::from_parts(head, Full::new(body))
}

/// Answers for a handler that panicked.
#[derive(Clone)]
struct Fault {
    telemetry: Telemetry,
    template: &'static str,
}

impl ResponseForPanic for Fault {
    type ResponseBody = Full<Bytes>;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send + 'static>) -> Answer {
        self.telemetry.http_panicked(self.template, text_of(&*panic));
        let detail = "this request met a fault of vecscale; the log has the details, and nothing else was stopped";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_answer()
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Lets a request in, or says why not. The body is read either way, so that the answer reaches who still writes.
async fn admit(server: &Server, names: Names, request: Request<Incoming>) -> Answer {
    let (mut head, body) = request.into_parts();
    let admitted = entrance(server, names, &mut head).await;
    let notifies = matches!(admitted, Ok((Endpoint::Alertmanager, ..)));
    let body = read_body(body, kept(admitted.as_ref().ok().map(|(endpoint, ..)| *endpoint))).await;
    let call = admitted.and_then(|(endpoint, id, caller)| {
        if let Err(error) = body.as_ref()
            && notifies
        {
            server.unread_notification(*error);
        }
        let body = body.map_err(refused_body)?;
        Ok(Call { endpoint, id, caller, head, body })
    });
    match call {
        Ok(call) => server.answer(call).await.unwrap_or_else(Problem::into_answer),
        Err(problem) => problem.into_answer(),
    }
}

/// How many bytes of a body are kept, by what is asked for; of a refused request's (`None`) none.
fn kept(asked: Option<Endpoint>) -> usize {
    match asked {
        None => 0,
        Some(Endpoint::Alertmanager) => NOTIFICATION_LIMIT,
        Some(_) => BODY_LIMIT,
    }
}

/// What a request asks for, if it may ask at all, and who asks. Who may not ask does not learn what there is.
async fn entrance(
    server: &Server,
    names: Names,
    head: &mut request::Parts,
) -> Result<(Endpoint, String, Caller), Problem> {
    let found = head.extensions.remove::<Found>().expect("the outermost layer puts it there");
    let access = head.extensions.remove::<Arc<InForce>>().expect("the outermost layer puts it there");
    let external = server.options.external_url.as_ref();
    if !access.lets_in(head.extensions.get::<Handshake>()) {
        let detail =
            "this needs a client certificate, and what this connection showed of one is not trusted now: connect anew";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
    }
    // A page that made a browser come under a name of its own could not bring a credential along.
    if names == Names::Checked && !access.authenticated {
        check_host(&head.uri, &head.headers, external)?;
    }
    let needed = found.endpoint.as_ref().map_or(Some(Role::Admin), |endpoint| needed(*endpoint));
    let caller = match needed {
        None => Caller::anyone(),
        Some(needed) => {
            let caller = access.credentials.caller(&head.headers).await;
            if caller.as_ref().is_err_and(Problem::is_unauthorized) && head.headers.contains_key(header::AUTHORIZATION)
            {
                server.telemetry.credential_refused(found.template, head.extensions.get::<Peer>().map(|peer| peer.0));
            }
            caller?.with(needed)?
        }
    };
    let endpoint = found.endpoint?;
    if !matches!(head.method, Method::GET | Method::HEAD) {
        check_origin(&head.uri, &head.headers, access.scheme(), external)?;
    }
    Ok((endpoint, found.id, caller))
}

fn refused_body(error: BodyError) -> Problem {
    let problem = Problem::new(error.status(), error.to_string());
    match error {
        BodyError::TooLarge(_) => problem,
        // What is still to come of this body cannot be told from a next request.
        BodyError::TooSlow | BodyError::Broken => problem.with_header(header::CONNECTION, CLOSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_what_was_refused() {
        for (asked, bytes) in [(None, 0), (Some(Endpoint::Alertmanager), 4 << 20), (Some(Endpoint::Start), 1 << 20)] {
            assert_eq!(kept(asked), bytes, "{asked:?}");
        }
    }
}
