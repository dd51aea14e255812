//! From a path to what it asks for.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use crate::metrics::Endpoint;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Whether the process lives.
    Live,
    /// Whether requests should be sent here.
    Ready,
    /// What the gateway is.
    Server,
    /// Whether requests for this model should be sent here.
    ModelReady(ModelPath<'a>),
    /// What the model takes and gives.
    Model(ModelPath<'a>),
    /// Scores.
    Infer(ModelPath<'a>),
    /// What the gateway counts.
    Metrics,
    /// Nothing that there is.
    Unknown,
}

/// A model by its name, and perhaps by its version.
#[derive(Debug, PartialEq, Eq)]
pub struct ModelPath<'a> {
    /// As the path has it, its escapes resolved.
    pub name: Cow<'a, str>,
    /// The same.
    pub version: Option<Cow<'a, str>>,
}

impl<'a> Route<'a> {
    /// What a path asks for.
    pub fn of(path: &'a str) -> Route<'a> {
        match path {
            "/v2/health/live" => Route::Live,
            "/v2/health/ready" => Route::Ready,
            "/v2" | "/v2/" => Route::Server,
            "/metrics" => Route::Metrics,
            _ => path.strip_prefix("/v2/models/").map_or(Route::Unknown, Route::of_model),
        }
    }

    /// Behind `/v2/models/`.
    fn of_model(path: &'a str) -> Route<'a> {
        let (path, route): (_, fn(ModelPath<'a>) -> Route<'a>) = match path.rsplit_once('/') {
            Some((path, "infer")) => (path, Route::Infer),
            Some((path, "ready")) => (path, Route::ModelReady),
            _ => (path, Route::Model),
        };
        let (name, version) = match path.rsplit_once("/versions/") {
            Some((name, version)) => (name, Some(version)),
            None => (path, None),
        };
        let is_unknown = name.is_empty() || version.is_some_and(|version| version.is_empty() || version.contains('/'));
        match (unescaped(name), version.map(unescaped)) {
            (Some(name), None) if !is_unknown => route(ModelPath { name, version: None }),
            (Some(name), Some(Some(version))) if !is_unknown => route(ModelPath { name, version: Some(version) }),
            _ => Route::Unknown,
        }
    }

    /// As what it is counted.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Route::Infer(_) => Endpoint::Infer,
            Route::Server | Route::Model(_) => Endpoint::Metadata,
            Route::Live | Route::Ready | Route::ModelReady(_) => Endpoint::Health,
            Route::Metrics => Endpoint::Metrics,
            Route::Unknown => Endpoint::Unknown,
        }
    }
}

/// A part of a path without its escapes (`%20`); nothing if it has wrong ones, or is no text then.
fn unescaped(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return Some(Cow::Borrowed(part));
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut pieces = part.split('%');
    bytes.extend_from_slice(pieces.next()?.as_bytes());
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model<'a>(name: &'a str, version: Option<&'a str>) -> ModelPath<'a> {
        ModelPath { name: name.into(), version: version.map(Cow::Borrowed) }
    }

    #[test]
    fn paths_are_those_of_the_protocol() {
        for (path, route) in [
            ("/v2", Route::Server),
            ("/v2/health/live", Route::Live),
            ("/v2/health/ready", Route::Ready),
            ("/metrics", Route::Metrics),
            ("/v2/models/sum", Route::Model(model("sum", None))),
            ("/v2/models/sum/versions/1", Route::Model(model("sum", Some("1")))),
            ("/v2/models/sum/ready", Route::ModelReady(model("sum", None))),
            ("/v2/models/sum/versions/1/ready", Route::ModelReady(model("sum", Some("1")))),
            ("/v2/models/sum/infer", Route::Infer(model("sum", None))),
            ("/v2/models/sum/versions/0f/infer", Route::Infer(model("sum", Some("0f")))),
            ("/v2/models/a%20b%C3%BC%25/infer", Route::Infer(model("a bü%", None))),
            ("/v2/models/a/b/infer", Route::Infer(model("a/b", None))),
            ("/v2/models/a%2Fb", Route::Model(model("a/b", None))),
            ("/v2/models/infer", Route::Model(model("infer", None))),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
        for path in [
            "",
            "/",
            "/v2/models",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/a%2/infer",
            "/v2/models/a%zz/infer",
            "/v2/models/a%ff/infer",
            "/v2/models/a%+1/infer",
            "/v2/models/a/versions/",
            "/v2/models/a/versions//infer",
            "/v2/models/a/versions/1/2",
            "/v1/models/sum:predict",
            "/V2",
        ] {
            assert_eq!(Route::of(path), Route::Unknown, "{path}");
        }
    }
}
