//! All functions' routes on one port, in the place of API Gateway.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use shared::App;
use shared::error::ErrorFormat;
use shared::http::{Origin, observed};
use shared::lambda::{Authorized, new_request_id};
use tokio::net::TcpListener;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The routes of all functions.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(api_keys_create::routes())
        .merge(api_keys_list::routes())
        .merge(api_keys_revoke::routes())
        .merge(audit_log_list::routes())
        .merge(docs_openapi::routes())
        .merge(email_tokens_regenerate::routes())
        .merge(email_tokens_register::routes())
        .merge(email_tokens_reset::routes())
        .merge(email_tokens_revoke::routes())
        .merge(email_tokens_status::routes())
        .merge(installations_list::routes())
        .merge(org_access_tokens_create::routes())
        .merge(org_access_tokens_delete::routes())
        .merge(org_access_tokens_list::routes())
        .merge(org_access_tokens_update::routes())
        .merge(org_user_tokens_issue::routes())
        .merge(org_user_tokens_list::routes())
        .merge(org_user_tokens_probe::routes())
        .merge(org_user_tokens_revoke::routes())
        .merge(org_user_tokens_revoke_by_user::routes())
        .merge(registry_npm::routes())
        .merge(registry_pypi::routes())
        .merge(tokens_introspect::routes())
        .merge(tokens_whoami::routes())
}

/// The OpenAPI document, generated from the routes. It is checked in as `openapi.json`.
pub fn document() -> OpenApi {
    shared::openapi::document(routes().into_openapi())
}

/// The whole service.
pub fn router(app: App) -> Router {
    let routes = Router::from(routes())
        .fallback(docs_not_found::not_found)
        .method_not_allowed_fallback(docs_not_found::not_found)
        .layer(from_fn(match_methods_exactly))
        .layer(from_fn_with_state(app.clone(), authorize))
        .with_state(app);
    observed(routes)
}

/// Serves a [`router`] until `shutdown` resolves and what is under way is answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router.layer(from_fn(with_origin)).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}

/// The authorizer before the routes that the template puts it before.
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

/// The path of what stands behind the authorizer, for `GET`.
const WHOAMI: &str = "/v1/whoami";

/// axum answers `HEAD` wherever there is a `GET`; API Gateway does not, but for the registries, which take any method.
async fn match_methods_exactly(request: Request, next: Next) -> Response {
    if request.method() == Method::HEAD && ErrorFormat::at(request.uri().path()) == ErrorFormat::Envelope {
        return docs_not_found::not_found(request).await.into_response();
    }
    next.run(request).await
}

/// Notes where a request comes from: the TCP peer.
async fn with_origin(ConnectInfo(peer): ConnectInfo<SocketAddr>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Origin { request_id: new_request_id(), source_ip: Some(peer.ip()) });
    next.run(request).await
}
