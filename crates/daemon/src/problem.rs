//! Error responses over HTTP.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use control::Problem;
use control::problem::PROBLEM_MEDIA_TYPE;

/// The response with the status and the body of `problem` (RFC 9457).
#[must_use]
pub fn response(problem: &Problem) -> HttpResponse {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).content_type(PROBLEM_MEDIA_TYPE).json(problem)
}
