//! The page for people: three files that are part of the program. It asks `/status` and shows what it is told.

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::routes::answer;

pub(super) fn html() -> Response<Body> {
    answer(StatusCode::OK, "text/html; charset=utf-8", include_str!("page/page.html"))
}

pub(super) fn style() -> Response<Body> {
    answer(StatusCode::OK, "text/css; charset=utf-8", include_str!("page/page.css"))
}

pub(super) fn script() -> Response<Body> {
    answer(StatusCode::OK, "text/javascript; charset=utf-8", include_str!("page/page.js"))
}
