//! Serves the routes of all functions on one port, in place of API Gateway.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use shared::error::ErrorFormat;
use shared::lambda::{Authorized, new_request_id};
use shared::mail::Mailer;
use shared::observe::{Origin, observed};
use shared::registry::Registries;
use shared::store::installations::InstallationLog;
use shared::{App, InstallationsApp, MailApp, RegistryApp};
use tokio::net::TcpListener;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The state of the whole service: what every function's state is made of.
#[derive(Debug, Clone)]
pub struct Service {
    /// The state that every function needs.
    pub app: App,
    /// The installation log.
    pub log: InstallationLog,
    /// What sends mail.
    pub mailer: Mailer,
    /// The upstream registries.
    pub registries: Registries,
}

/// The routes of functions that need the tokens table.
fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(api_keys_create::routes())
        .merge(api_keys_list::routes())
        .merge(api_keys_revoke::routes())
        .merge(audit_log_list::routes())
        .merge(docs_openapi::routes())
        .merge(email_tokens_revoke::routes())
        .merge(email_tokens_status::routes())
        .merge(org_access_tokens_create::routes())
        .merge(org_access_tokens_delete::routes())
        .merge(org_access_tokens_list::routes())
        .merge(org_access_tokens_update::routes())
        .merge(org_user_tokens_issue::routes())
        .merge(org_user_tokens_list::routes())
        .merge(org_user_tokens_probe::routes())
        .merge(org_user_tokens_revoke::routes())
        .merge(org_user_tokens_revoke_by_user::routes())
        .merge(tokens_introspect::routes())
        .merge(tokens_whoami::routes())
}

/// The routes of functions that also send mail.
fn mail_routes() -> OpenApiRouter<MailApp> {
    OpenApiRouter::new()
        .merge(email_tokens_regenerate::routes())
        .merge(email_tokens_register::routes())
        .merge(email_tokens_reset::routes())
}

/// The routes of functions that read the installation log.
fn installations_routes() -> OpenApiRouter<InstallationsApp> {
    OpenApiRouter::new().merge(installations_list::routes())
}

/// The routes of the registries.
fn registry_routes() -> OpenApiRouter<RegistryApp> {
    OpenApiRouter::new().merge(registry_npm::routes()).merge(registry_pypi::routes())
}

/// The OpenAPI document, generated from the routes. It is checked in as `openapi.json`.
pub fn document() -> OpenApi {
    let mut document = routes().into_openapi();
    document.merge(mail_routes().into_openapi());
    document.merge(installations_routes().into_openapi());
    document.merge(registry_routes().into_openapi());
    shared::openapi::document(document)
}

/// The whole service.
pub fn router(service: Service) -> Router {
    let Service { app, log, mailer, registries } = service;
    let routes = OpenApiRouter::new()
        .merge(routes().with_state(app.clone()))
        .merge(mail_routes().with_state(MailApp { app: app.clone(), mailer }))
        .merge(installations_routes().with_state(InstallationsApp { app: app.clone(), log: log.clone() }))
        .merge(registry_routes().with_state(RegistryApp { app: app.clone(), log, registries }));
    let routes = Router::from(routes)
        .fallback(docs_not_found::not_found)
        .method_not_allowed_fallback(docs_not_found::not_found)
        .layer(from_fn(match_methods_exactly))
        .layer(from_fn_with_state(app, authorize));
    observed(routes)
}

/// Serves a [`router`] until `shutdown` resolves and pending requests are answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router.layer(from_fn(with_origin)).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}

/// Runs the authorizer for the same route as in `template.yaml`.
async fn authorize(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if request.method() != Method::GET || request.uri().path() != WHOAMI {
        return next.run(request).await;
    }
    match tokens_authorize::authorize(&app, request.headers()).await {
        Ok(principal) => {
            let context = serde_json::to_value(principal).unwrap_or_default();
            request.extensions_mut().insert(Authorized(context));
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// The `GET` route behind the authorizer.
const WHOAMI: &str = "/v1/whoami";

/// axum answers `HEAD` for every `GET` route. API Gateway does so only for the registries, which
/// accept any method.
async fn match_methods_exactly(request: Request, next: Next) -> Response {
    if request.method() == Method::HEAD && ErrorFormat::at(request.uri().path()) == ErrorFormat::Envelope {
        return docs_not_found::not_found(request).await.into_response();
    }
    next.run(request).await
}

/// Records the TCP peer as the source of a request.
async fn with_origin(ConnectInfo(peer): ConnectInfo<SocketAddr>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Origin { request_id: new_request_id(), source_ip: Some(peer.ip()) });
    next.run(request).await
}
