//! Serves the routes of all functions on one port, in place of API Gateway.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::http::header::HOST;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Router, ServiceExt};
use shared::console::respond::respond;
use shared::console::{Console, ConsoleInstallationsApp, ConsoleMailApp, METHODS};
use shared::error::ErrorFormat;
use shared::hosts::RegistryHosts;
use shared::lambda::{Authorized, new_request_id};
use shared::mail::Mailer;
use shared::observe::{Origin, observed};
use shared::oidc::{IdentityProvider, Workloads};
use shared::registry::Registries;
use shared::secret_scanning::{ScannerKeys, ScanningApp};
use shared::store::installations::InstallationLog;
use shared::{ApiError, App, CiApp, ConsoleApp, ConsoleProviderApp, InstallationsApp, MailApp, RegistryApp};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
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
    /// The issuers and audiences of CI.
    pub workloads: Workloads,
    /// The console.
    pub console: Console,
    /// The identity provider, where people sign in with one.
    pub provider: Option<IdentityProvider>,
    /// The keys of GitHub's secret scanning, where its reports are accepted.
    pub scanner_keys: Option<ScannerKeys>,
}

/// The routes of these crates, by the crate's name.
macro_rules! routes_of {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), $name::routes())),*] };
}

/// The functions that need the tokens table.
fn functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<App>)> {
    routes_of![
        api_keys_create,
        api_keys_list,
        api_keys_revoke,
        api_keys_rotate,
        audit_log_list,
        bots_rotate_key,
        docs_openapi,
        email_tokens_status,
        org_access_tokens_create,
        org_access_tokens_delete,
        org_access_tokens_list,
        org_access_tokens_update,
        org_user_tokens_issue,
        org_user_tokens_list,
        org_user_tokens_probe,
        org_user_tokens_revoke,
        org_user_tokens_revoke_by_user,
        org_user_tokens_rotate,
        registry_npm_logout,
        scim_users_create,
        scim_users_delete,
        scim_users_get,
        scim_users_list,
        scim_users_update,
        tokens_introspect,
        tokens_revoke_self,
        tokens_whoami,
    ]
}

/// The functions that also send mail.
fn mail_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<MailApp>)> {
    routes_of![email_tokens_regenerate, email_tokens_register, email_tokens_reset, email_tokens_revoke, tokens_leaked]
}

/// The functions that take GitHub's reports.
fn scanning_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<ScanningApp>)> {
    routes_of![integrations_github_secret_scanning]
}

/// The functions that read the installation log.
fn installations_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<InstallationsApp>)> {
    routes_of![installations_list]
}

/// The functions that verify ID tokens of CI.
fn ci_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<CiApp>)> {
    routes_of![bots_exchange]
}

/// The registries.
fn registry_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<RegistryApp>)> {
    routes_of![registry_npm, registry_pypi]
}

/// Pages of the console.
fn console_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<ConsoleApp>)> {
    routes_of![
        console_access_tokens,
        console_account,
        console_api_keys,
        console_audit_log,
        console_bots,
        console_my_tokens,
        console_org_user_tokens,
        console_policies,
        console_projects,
        sign_in_sign_out,
        sign_in_start,
    ]
}

/// Pages of the console that also send mail.
fn console_mail_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<ConsoleMailApp>)> {
    routes_of![console_members, sign_in_code]
}

/// Pages of the console that also read the installation log.
fn console_installations_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<ConsoleInstallationsApp>)>
{
    routes_of![console_installations, console_overview]
}

/// The way to an identity provider and back.
fn console_provider_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter<ConsoleProviderApp>)> {
    routes_of![sign_in_callback]
}

/// The functions without state.
fn stateless_functions() -> impl IntoIterator<Item = (&'static str, OpenApiRouter)> {
    routes_of![console_assets]
}

/// One router with the routes of all these functions.
fn merged<S: Clone + Send + Sync + 'static>(
    functions: impl IntoIterator<Item = (&'static str, OpenApiRouter<S>)>,
) -> OpenApiRouter<S> {
    functions.into_iter().fold(OpenApiRouter::new(), |all, (_, routes)| all.merge(routes))
}

/// The OpenAPI document, generated from the routes. It is checked in as `openapi.json`.
pub fn document() -> OpenApi {
    let mut document = merged(functions()).into_openapi();
    document.merge(merged(mail_functions()).into_openapi());
    document.merge(merged(scanning_functions()).into_openapi());
    document.merge(merged(installations_functions()).into_openapi());
    document.merge(merged(ci_functions()).into_openapi());
    document.merge(merged(registry_functions()).into_openapi());
    shared::openapi::document(document)
}

/// What each function serves by itself when deployed, by its name.
pub fn deployed(service: Service) -> BTreeMap<String, Router> {
    fn each<S: Clone + Send + Sync + 'static>(
        functions: impl IntoIterator<Item = (&'static str, OpenApiRouter<S>)>,
        state: S,
    ) -> impl Iterator<Item = (String, Router)> {
        functions
            .into_iter()
            .map(move |(name, routes)| (name.replace('_', "-"), Router::from(routes).with_state(state.clone())))
    }
    let Service { app, log, mailer, registries, workloads, console, provider, scanner_keys } = service;
    let pages = each(console_functions(), ConsoleApp { app: app.clone(), console: console.clone() })
        .chain(each(console_mail_functions(), console_mail_app(&app, &console, &mailer)))
        .chain(each(console_installations_functions(), console_installations_app(&app, &console, &log)))
        .chain(each(console_provider_functions(), console_provider_app(&app, &console, &provider)))
        .chain(each(stateless_functions(), ()));
    let mail = MailApp { app: app.clone(), mailer };
    each(functions(), app.clone())
        .chain(each(mail_functions(), mail.clone()))
        .chain(each(scanning_functions(), ScanningApp { mail, keys: scanner_keys }))
        .chain(each(installations_functions(), InstallationsApp { app: app.clone(), log: log.clone() }))
        .chain(each(ci_functions(), CiApp { app: app.clone(), workloads }))
        .chain(each(registry_functions(), RegistryApp { app, log, registries }))
        .chain(each(routes_of![docs_not_found], ()))
        .chain(pages)
        .map(|(name, router)| (name, observed(router.layer(from_fn_with_state(console.clone(), respond)))))
        .collect()
}

fn console_mail_app(app: &App, console: &Console, mailer: &Mailer) -> ConsoleMailApp {
    ConsoleMailApp { app: app.clone(), console: console.clone(), mailer: mailer.clone() }
}

fn console_installations_app(app: &App, console: &Console, log: &InstallationLog) -> ConsoleInstallationsApp {
    ConsoleInstallationsApp { app: app.clone(), console: console.clone(), log: log.clone() }
}

fn console_provider_app(app: &App, console: &Console, provider: &Option<IdentityProvider>) -> ConsoleProviderApp {
    ConsoleProviderApp { app: app.clone(), console: console.clone(), provider: provider.clone() }
}

/// The whole service.
pub fn router(service: Service) -> Router {
    let Service { app, log, mailer, registries, workloads, console, provider, scanner_keys } = service;
    let pages = OpenApiRouter::new()
        .merge(merged(console_functions()).with_state(ConsoleApp { app: app.clone(), console: console.clone() }))
        .merge(merged(console_mail_functions()).with_state(console_mail_app(&app, &console, &mailer)))
        .merge(merged(console_installations_functions()).with_state(console_installations_app(&app, &console, &log)))
        .merge(merged(console_provider_functions()).with_state(console_provider_app(&app, &console, &provider)))
        .merge(merged(stateless_functions()));
    let installations = InstallationsApp { app: app.clone(), log: log.clone() };
    let mail = MailApp { app: app.clone(), mailer };
    let routes = OpenApiRouter::new()
        .merge(merged(functions()).with_state(app.clone()))
        .merge(merged(mail_functions()).with_state(mail.clone()))
        .merge(merged(scanning_functions()).with_state(ScanningApp { mail, keys: scanner_keys }))
        .merge(merged(installations_functions()).with_state(installations))
        .merge(merged(ci_functions()).with_state(CiApp { app: app.clone(), workloads }))
        .merge(merged(registry_functions()).with_state(RegistryApp { app: app.clone(), log, registries }));
    let routes = Router::from(routes.merge(pages))
        .fallback(docs_not_found::not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(console, respond))
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
    let hosts = RegistryHosts::on_this_machine(listener.local_addr()?.port());
    let service = ServiceBuilder::new()
        .map_request(move |request| at_its_host(&hosts, request))
        .service(router.layer(from_fn(with_origin)));
    let service = ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(service);
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}

/// Pages are not in the OpenAPI document, from which the other paths' methods are known.
async fn method_not_allowed(request: Request) -> Response {
    match ErrorFormat::at(request.uri().path()) {
        ErrorFormat::Page => ApiError::MethodNotAllowed(METHODS.to_owned()).into_response(),
        _ => docs_not_found::not_found(request).await,
    }
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

/// The path of the OpenAPI document, which has a route for `HEAD`.
const DOCUMENT: &str = "/v1/docs/openapi.json";

/// axum answers `HEAD` for every `GET` route. API Gateway does so only for the registries, which
/// accept any method.
async fn match_methods_exactly(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_exact = matches!(ErrorFormat::at(path), ErrorFormat::Envelope | ErrorFormat::Scim);
    if request.method() == Method::HEAD && path != DOCUMENT && is_exact {
        return docs_not_found::not_found(request).await.into_response();
    }
    next.run(request).await
}

/// Leads a request that came to a registry's own host to the registry's path. Here the caller names
/// the host: [`origin`](crate::origin) refuses names that are not ours.
fn at_its_host(hosts: &RegistryHosts, request: Request) -> Request {
    let target = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let header = || request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    hosts.enter(&target.or_else(header).unwrap_or_default(), request)
}

/// Records the TCP peer as the source of a request.
async fn with_origin(ConnectInfo(peer): ConnectInfo<SocketAddr>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Origin { request_id: new_request_id(), source_ip: Some(peer.ip()) });
    next.run(request).await
}
