//! The Lambda binary of `protected-api`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    lambda_http::run(lambda_http::service_fn(protected_api::handle)).await
}
