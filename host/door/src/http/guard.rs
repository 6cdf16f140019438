//! Keeps web pages of other sites from using a browser against the host.
//!
//! A page on any site can send simple requests to `http://127.0.0.1`. Under its own host name, if that
//! resolves there (DNS rebinding), it can read the answers too. Browsers mark such requests with
//! `Origin`, `Sec-Fetch-Site` and `Host`.
//!
//! Absent on purpose: everything about clients other than browsers.

use std::net::IpAddr;

use axum::http::{HeaderMap, header, uri::Authority};

use super::problem::{Kind, Problem};

/// Refuses a request that a browser sends for another site, or to a host name that is not configured.
pub(super) fn check(headers: &HeaderMap, names: &[String]) -> Result<(), Problem> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let Ok(authority) = host.parse::<Authority>() else {
        let detail = "the header `Host` is missing or malformed";
        return Err(Problem::new(Kind::BadParameters, detail));
    };
    if !is_own(authority.host(), names) {
        let detail = format!("this host is not known as `{}`", authority.host());
        return Err(Problem::new(Kind::WrongHost, detail));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let same = origin.to_str().is_ok_and(|origin| {
            let site = origin.split_once("://").map(|(_, site)| site);
            site.is_some_and(|site| site.eq_ignore_ascii_case(host))
        });
        if !same {
            let detail = "the header `Origin` names another site";
            return Err(Problem::new(Kind::CrossOrigin, detail));
        }
    }
    let cross = headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site" || site == "same-site");
    if cross {
        let detail = "the header `Sec-Fetch-Site` says that another site sent the request";
        return Err(Problem::new(Kind::CrossOrigin, detail));
    }
    Ok(())
}

fn is_own(host: &str, names: &[String]) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn kind(headers: &[(&'static str, &'static str)]) -> Option<Kind> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        check(&map, &["ours.example".to_owned()])
            .err()
            .map(|it| it.kind)
    }

    #[test]
    fn own_names_and_addresses_are_served() {
        for host in [
            "127.0.0.1:8080",
            "localhost",
            "[::1]:1",
            "Ours.Example:80",
            "10.0.0.1",
        ] {
            assert_eq!(kind(&[("host", host)]), None, "{host}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        assert_eq!(kind(&[("host", "evil.example")]), Some(Kind::WrongHost));
        assert_eq!(kind(&[]), Some(Kind::BadParameters));
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let own = ("host", "127.0.0.1:80");
        assert_eq!(kind(&[own, ("origin", "http://127.0.0.1:80")]), None);
        for origin in ["https://evil.example", "null", "http://127.0.0.1:81"] {
            assert_eq!(
                kind(&[own, ("origin", origin)]),
                Some(Kind::CrossOrigin),
                "{origin}"
            );
        }
        assert_eq!(kind(&[own, ("sec-fetch-site", "same-origin")]), None);
        let cross = ("sec-fetch-site", "cross-site");
        assert_eq!(kind(&[own, cross]), Some(Kind::CrossOrigin));
    }
}
