//! A request as it came, and what it says about itself before anything is checked.

use bytes::Bytes;
use http::{HeaderMap, Method, header};

pub(crate) type Pairs = Vec<(String, String)>;

/// A request as it came.
pub(crate) struct ApiRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Pairs,
    pub(crate) form: Pairs,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl ApiRequest {
    pub(crate) fn new(method: Method, target: &str, headers: HeaderMap, body: Bytes) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let form = if is_form(&headers) {
            pairs(&body)
        } else {
            Vec::new()
        };
        Self {
            method,
            path: path.to_owned(),
            query: pairs(query.as_bytes()),
            form,
            headers,
            body,
        }
    }

    /// A parameter of the query or the form; an empty one counts as absent.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .chain(&self.form)
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn host(&self) -> &str {
        self.header("host").unwrap_or("localhost")
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.param(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"))
}

/// Decodes as the gateway does: a plus is a space in the query too.
fn pairs(encoded: &[u8]) -> Pairs {
    form_urlencoded::parse(encoded).into_owned().collect()
}
