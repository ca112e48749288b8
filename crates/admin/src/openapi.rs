//! The OpenAPI document, made from the handlers and their types.

use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{Modify, OpenApi as _};

use crate::error::ErrorBody;
use crate::logs::{LogLag, Purpose, openapi_parameters};
use crate::{exporters, health, logs, metrics, spool, trial};

/// The security scheme's name.
const TOKEN: &str = "admin_token";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "MagicAPI Gateway: admin API",
        description = "Everything needs the admin token in the header `Authorization: Bearer <token>`. Errors are \
                       `{\"error\":{\"code\",\"message\"}}`.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        metrics::metrics,
        health::health_details,
        exporters::exporters,
        trial::exporter_test,
        spool::spool_list,
        spool::spool_records,
        spool::spool_replay,
        spool::spool_purge,
        logs::list,
        logs::follow,
        logs::one,
        openapi_json
    ),
    components(schemas(LogLag, ErrorBody)),
    modifiers(&Token, &LogParameters)
)]
struct Document;

/// The document.
pub(crate) fn document() -> OpenApi {
    Document::openapi()
}

/// This document
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    tag = "operation",
    responses(
        (status = 200, description = "OpenAPI 3.1", body = Object),
        (status = 401, description = "No token", body = ErrorBody),
    )
)]
pub(crate) async fn openapi_json() -> Json<OpenApi> {
    Json(document())
}

/// Says that every operation needs the token.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("ADMIN_TOKEN, or `token` in gateway.json in the data directory"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
        document.security = Some(vec![SecurityRequirement::new(TOKEN, Vec::<String>::new())]);
    }
}

/// Adds the parameters that are read by a table rather than by a type.
struct LogParameters;

impl Modify for LogParameters {
    fn modify(&self, document: &mut OpenApi) {
        for (path, purpose) in [("/api/v1/logs", Purpose::List), ("/api/v1/logs/follow", Purpose::Follow)] {
            let Some(operation) = operation(document, path) else { continue };
            let parameters = operation.parameters.get_or_insert_default();
            parameters.extend(openapi_parameters(purpose).into_iter().map(RefOr::T));
        }
    }
}

fn operation<'d>(document: &'d mut OpenApi, path: &str) -> Option<&'d mut Operation> {
    document.paths.paths.get_mut(path)?.get.as_mut()
}
