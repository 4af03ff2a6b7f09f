//! A function that returns an empty response: measures the overhead of the runtime.

use lambda_http::{Error, Request, Response, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    lambda_http::run(service_fn(async |_: Request| Ok::<_, Error>(Response::new(String::new())))).await
}
