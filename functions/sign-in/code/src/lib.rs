//! Pages of the console: to be written.

use shared::ConsoleMailApp;
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleMailApp> {
    OpenApiRouter::new()
}
