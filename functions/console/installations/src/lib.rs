//! Pages of the console: to be written.

use shared::ConsoleInstallationsApp;
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleInstallationsApp> {
    OpenApiRouter::new()
}
