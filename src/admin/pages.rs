//! What each path answers.
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Response, StatusCode, Uri};
use sha2::{Digest, Sha256};

use super::health::{Check, State};
use super::snapshot::{PLACE, snapshot};
use super::status::status;
use super::watch::Watch;
use crate::metrics::families::{self, text};

const PLAIN: &str = "text/plain; charset=utf-8";

/// What stands behind an unknown path.
const PATHS: &str = "There is:\n\
    /             the status page\n\
    /status.json  what it shows\n\
    /metrics      for Prometheus\n\
    /livez        200 if all threads make progress, else 503\n\
    /readyz       200 if requests should be sent here, else 503\n\
    /drainz       for balancers: 200 ready, 404 to be given no more connections, 503 broken\n\
    Behind the last three, ?verbose tells each check.\n";

/// The status page: one file, which asks for /status.json alone. In its place for it is what who runs no script can read.
const PAGE: &str = include_str!("page.html");

/// What a browser lets the page do: run and show what it holds itself, and ask this server. Nothing from elsewhere.
static PAGE_POLICY: LazyLock<String> = LazyLock::new(|| page_policy(PAGE));

/// Answers a request.
pub(super) fn answer(watch: &mut Watch, method: &Method, uri: &Uri, has_body: bool) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD: nothing can be changed here.\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if has_body {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "No request here has a body.\n");
    }
    let verbose = uri.query().is_some_and(|query| query.split('&').any(|part| matches!(part, "verbose" | "verbose=1")));
    watch.look();
    match uri.path() {
        "/metrics" => {
            let body = watch.with_sources(text);
            response(StatusCode::OK, families::MEDIA_TYPE, body)
        }
        "/livez" => checked(&watch.health().live_checks(), verbose),
        "/readyz" => checked(&watch.health().ready_checks(), verbose),
        "/drainz" => drained(watch, verbose),
        "/status.json" => {
            watch.status_asked();
            response(StatusCode::OK, "application/json", status(watch).to_string())
        }
        "/" => {
            let html = PAGE.replacen(PLACE, &snapshot(&status(watch)), 1);
            let mut page = response(StatusCode::OK, "text/html; charset=utf-8", html);
            let policy = HeaderValue::from_str(&PAGE_POLICY).expect("hashes in base64");
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            page
        }
        _ => plain(StatusCode::NOT_FOUND, PATHS),
    }
}

/// 200 if all is well, else 503 and what is not. With `verbose`, each check in a line of its own.
fn checked(checks: &[Check], verbose: bool) -> Response<Full<Bytes>> {
    let is_well = !checks.iter().any(Check::is_wrong);
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    plain(status, lines(checks, verbose))
}

/// A server that is neither ready nor broken is to be given no more connections, and to keep those that it has.
fn drained(watch: &Watch, verbose: bool) -> Response<Full<Bytes>> {
    let checks = watch.health().ready_checks();
    let status = match watch.health().state() {
        State::Broken => StatusCode::SERVICE_UNAVAILABLE,
        State::Leaving | State::Draining => StatusCode::NOT_FOUND,
        State::Ready if checks.iter().any(Check::is_wrong) => StatusCode::NOT_FOUND,
        State::Ready => StatusCode::OK,
    };
    plain(status, lines(&checks, verbose))
}

fn lines(checks: &[Check], verbose: bool) -> String {
    let shown: String =
        checks.iter().filter(|check| verbose || check.is_wrong()).map(|check| format!("{check}\n")).collect();
    if checks.iter().any(Check::is_wrong) { shown } else { shown + "ok\n" }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, PLAIN, body)
}

fn response(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The page's own style and script, by their hashes; anything else is refused.
fn page_policy(page: &str) -> String {
    let hashes = |tag: &str| -> String {
        let contents = inline(page, tag);
        contents.iter().map(|content| format!(" 'sha256-{}'", STANDARD.encode(Sha256::digest(content)))).collect()
    };
    format!(
        "default-src 'none'; connect-src 'self'; img-src data:; style-src{}; script-src{}; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        or_none(&hashes("style")),
        or_none(&hashes("script")),
    )
}

fn or_none(hashes: &str) -> &str {
    if hashes.is_empty() { " 'none'" } else { hashes }
}

/// What stands in each element of this tag.
fn inline<'a>(page: &'a str, tag: &str) -> Vec<&'a str> {
    let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
    page.split(&begin).skip(1).map(|rest| rest.split(&end).next().expect("the first part is always there")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy lets the page's own style and script be, by their exact bytes, and nothing else.
    #[test]
    fn the_policy_names_what_the_page_holds() {
        let policy = page_policy("<style>a{}</style><p><script>x()</script>");
        // printf 'a{}' | openssl dgst -sha256 -binary | base64
        assert!(policy.contains("style-src 'sha256-X1RutGBrXCt9KkSaXMK7tHftWiRscFHOhxsS8tv8hBk='"), "{policy}");
        // printf 'x()' | openssl dgst -sha256 -binary | base64
        assert!(policy.contains("script-src 'sha256-D6IGS8VMvCoyaR/l0h9tERrBTATY01CoPS7l6xDv0kI='"), "{policy}");
        assert!(
            policy.starts_with("default-src 'none'; connect-src 'self';") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert!(page_policy("").contains("style-src 'none'; script-src 'none'"));
    }

    /// What the policy would refuse is not in the page: attributes with style or script in them, other sites, other elements
    /// that are asked for.
    #[test]
    fn the_page_needs_nothing_that_its_policy_refuses() {
        assert_eq!((inline(PAGE, "style").len(), inline(PAGE, "script").len()), (1, 1));
        for refused in [
            " style=\"",
            " onload=",
            " onclick=",
            "<style ",
            "<script ",
            "<link",
            "<iframe",
            "@import",
            "http://",
            "url(",
        ] {
            // An SVG's name space is no address that anybody asks for.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(refused), "{refused}");
        }
        assert!(PAGE.starts_with("<!doctype html>") && PAGE.contains("<noscript>"), "readable without script");
        assert_eq!(PAGE.matches(PLACE).count(), 1);
    }
}
