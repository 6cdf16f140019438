//! Refuses requests whose end two readers of HTTP may see in different places.
//!
//! Behind a proxy that reads them otherwise, what one takes for a body is the other's next request
//! (request smuggling). hyper has read the request by then and knows one meaning; here those are
//! refused for which it chose among several.
//!
//! Absent on purpose: what hyper refuses itself.

use axum::http::{HeaderMap, Method, header};

use super::problem::{Kind, Problem};

pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: &str| Err(Problem::new(Kind::Ambiguous, detail));
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(encoding) = encodings.next() else {
        return Ok(());
    };
    if encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return refused("`Transfer-Encoding` is not `chunked` alone");
    }
    if headers.contains_key(header::CONTENT_LENGTH) {
        return refused("there are both `Content-Length` and `Transfer-Encoding`");
    }
    if method == Method::GET || method == Method::HEAD {
        return refused("`Transfer-Encoding` gives a body to a request that has none");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn is_refused(method: Method, list: &[(header::HeaderName, &'static str)]) -> bool {
        let pairs = list.iter().cloned();
        let headers: HeaderMap = pairs
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect();
        check(&method, &headers).is_err()
    }

    #[test]
    fn one_length_or_chunks_are_clear() {
        let (length, encoding) = (header::CONTENT_LENGTH, header::TRANSFER_ENCODING);
        assert!(!is_refused(Method::GET, &[]));
        assert!(!is_refused(Method::POST, &[(length, "5")]));
        assert!(!is_refused(Method::POST, &[(encoding, "Chunked")]));
    }

    #[test]
    fn ambiguous_input_is_refused() {
        let length = || (header::CONTENT_LENGTH, "5");
        let chunked = || (header::TRANSFER_ENCODING, "chunked");
        let twice = || (header::TRANSFER_ENCODING, "chunked, chunked");
        assert!(is_refused(Method::POST, &[chunked(), chunked()]));
        assert!(is_refused(Method::POST, &[twice()]));
        assert!(is_refused(Method::POST, &[length(), chunked()]));
        assert!(is_refused(Method::GET, &[chunked()]));
    }
}
