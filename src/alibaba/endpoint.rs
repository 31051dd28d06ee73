//! Which hosts credentials may be sent to. Pure: parsed origins are compared, never prefixes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

/// Scheme, host and port, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: &'static str,
    /// Host, with the port where it is not the scheme's own: what stands in the `Host` header.
    authority: String,
}

impl Origin {
    /// The origin of a bare host, over HTTPS.
    fn https(host: &str) -> Self {
        Self {
            scheme: "https",
            authority: host.to_owned(),
        }
    }

    /// What the `Host` header says, and what V3 signs.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|err| format!("{text:?} is not a URL: {err}"))?;
        let plain = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !plain {
            return Err(format!(
                "{text:?} is not an origin: write scheme://host[:port] and nothing more"
            ));
        }
        let host = url
            .host()
            .ok_or_else(|| format!("{text:?} names no host"))?;
        let scheme = match url.scheme() {
            "https" => "https",
            "http" if is_loopback(&host) => "http",
            "http" => return Err(format!("{text:?}: plain http is for loopback only")),
            other => return Err(format!("{text:?}: {other} is neither https nor http")),
        };
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        Ok(Self { scheme, authority })
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(ip) => IpAddr::from(*ip).is_loopback(),
        Host::Ipv6(ip) => IpAddr::from(*ip).is_loopback(),
        Host::Domain(name) => *name == "localhost",
    }
}

/// `--allow-endpoint <KMS origin>[=<STS origin>]`: an endpoint outside aliyuncs.com that stores may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedEndpoint {
    /// Where KMS is.
    pub kms: Origin,
    /// Where STS is, for the stores that name this KMS; the same origin when left out.
    pub sts: Origin,
}

impl FromStr for AllowedEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kms, sts) = text.split_once('=').unwrap_or((text, text));
        Ok(Self {
            kms: kms.parse()?,
            sts: sts.parse()?,
        })
    }
}

/// The endpoint of a store's KMS.
///
/// Without `endpoint`, the region's own host: `kms-vpc.<region>.aliyuncs.com`, or `kms.<region>.aliyuncs.com` when
/// `public` (`alibabacloud_tea_openapi`, `get_endpoint_rules`). With one: exactly such a host or
/// `<id>.cryptoservice.kms.aliyuncs.com`, else an origin that the operator was told to allow.
///
/// # Errors
/// A sentence that says what is not allowed, and what is.
pub fn resolve(
    region: &str,
    public: bool,
    endpoint: Option<&str>,
    allowed: &[AllowedEndpoint],
) -> Result<Origin, String> {
    if !is_region(region) {
        return Err(format!(
            "region {region:?} is not a region id, as cn-hangzhou"
        ));
    }
    let Some(endpoint) = endpoint else {
        let network = if public { "kms" } else { "kms-vpc" };
        return Ok(Origin::https(&format!("{network}.{region}.aliyuncs.com")));
    };
    if is_kms_host(endpoint) {
        return Ok(Origin::https(endpoint));
    }
    let refused = || {
        format!(
            "endpoint {endpoint:?} is not allowed: it is neither kms[-vpc].<region>.aliyuncs.com nor \
             <instance>.cryptoservice.kms.aliyuncs.com, nor an origin that the operator was started with \
             (--allow-endpoint, for the operator's administrator)"
        )
    };
    let origin: Origin = endpoint.parse().map_err(|_| refused())?;
    if allowed.iter().any(|allowed| allowed.kms == origin) {
        Ok(origin)
    } else {
        Err(refused())
    }
}

fn is_kms_host(host: &str) -> bool {
    let Some(name) = host.strip_suffix(".aliyuncs.com") else {
        return false;
    };
    if let Some(region) = name
        .strip_prefix("kms-vpc.")
        .or_else(|| name.strip_prefix("kms."))
    {
        return is_region(region);
    }
    name.strip_suffix(".cryptoservice.kms")
        .is_some_and(|id| is_label(id) && id.len() <= 63)
}

fn is_region(region: &str) -> bool {
    (2..=63).contains(&region.len()) && is_label(region)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origin(region: &str, public: bool, endpoint: Option<&str>) -> Result<String, String> {
        let allowed = ["http://127.0.0.1:8900".parse().unwrap()];
        resolve(region, public, endpoint, &allowed).map(|origin| origin.to_string())
    }

    #[test]
    fn a_region_has_its_own_hosts() {
        assert_eq!(
            origin("cn-hangzhou", false, None).unwrap(),
            "https://kms-vpc.cn-hangzhou.aliyuncs.com"
        );
        assert_eq!(
            origin("cn-hangzhou", true, None).unwrap(),
            "https://kms.cn-hangzhou.aliyuncs.com"
        );
    }

    #[test]
    fn an_endpoint_is_a_kms_host_or_one_that_the_operator_allows() {
        for (endpoint, allowed) in [
            ("kms.cn-hangzhou.aliyuncs.com", true),
            ("kms-vpc.eu-central-1.aliyuncs.com", true),
            ("kst-hzz65f176a0ogplgq.cryptoservice.kms.aliyuncs.com", true),
            ("http://127.0.0.1:8900", true),
            ("http://127.0.0.1:8901", false),
            ("http://127.0.0.1:89001", false),
            ("https://127.0.0.1:8900", false),
            ("http://127.0.0.1:8900@evil.example", false),
            ("http://127.0.0.1:8900/path", false),
            ("https://kms.cn-hangzhou.aliyuncs.com", false),
            ("my-bucket.oss-cn-hangzhou.aliyuncs.com", false),
            ("kms.cn-hangzhou.aliyuncs.com.", false),
            ("kms.cn-hangzhou.aliyuncs.com:443", false),
            ("KMS.cn-hangzhou.aliyuncs.com", false),
            ("kms.evil.cn-hangzhou.aliyuncs.com", false),
            ("user@kms.cn-hangzhou.aliyuncs.com", false),
            ("a.b.cryptoservice.kms.aliyuncs.com", false),
            ("cryptoservice.kms.aliyuncs.com", false),
            ("kms.cn-hangzhou.aliyuncs.com.evil.example", false),
            ("100.100.100.200", false),
            ("http://100.100.100.200", false),
            ("", false),
        ] {
            assert_eq!(
                origin("cn-hangzhou", false, Some(endpoint)).is_ok(),
                allowed,
                "{endpoint}"
            );
        }
    }

    #[test]
    fn a_region_is_never_a_way_out_of_the_domain() {
        for region in ["", "x", "a.b", "evil.example/", "-a", "cn hangzhou", "CN"] {
            assert!(origin(region, false, None).is_err(), "{region}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        assert!("http://10.0.0.1:80".parse::<AllowedEndpoint>().is_err());
        assert!(
            "https://kms.internal:8443"
                .parse::<AllowedEndpoint>()
                .is_ok()
        );
        let pair: AllowedEndpoint = "http://[::1]:1=http://localhost:2".parse().unwrap();
        assert_eq!(pair.kms.authority(), "[::1]:1");
        assert_eq!(pair.sts.to_string(), "http://localhost:2");
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_a_host_of_kms(endpoint in "[a-z.:/@#?%-]{0,12}(kms|cryptoservice.kms|oss)[a-z.:/@#?-]{0,12}.aliyuncs.com[a-z.:/@-]{0,6}") {
            if let Ok(origin) = resolve("cn-hangzhou", false, Some(&endpoint), &[]) {
                let url = Url::parse(&origin.to_string()).unwrap();
                let host = url.host_str().unwrap();
                prop_assert_eq!(host, &endpoint);
                prop_assert!(host.starts_with("kms.") || host.starts_with("kms-vpc.") || host.ends_with(".cryptoservice.kms.aliyuncs.com"));
            }
        }
    }
}
