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

    /// Whether it is that of a single KMS instance.
    #[must_use]
    pub fn is_instance(&self) -> bool {
        self.authority.ends_with(INSTANCES)
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

/// How the hosts of KMS instances end.
const INSTANCES: &str = ".cryptoservice.kms.aliyuncs.com";

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
    // STS is at a host of the region, also where KMS is not.
    let in_the_cloud = |host: &str| {
        if is_region_in_hosts(region) {
            Ok(Origin::https(host))
        } else {
            Err(format!(
                "region {region:?} is not a region id of Alibaba Cloud, as cn-hangzhou"
            ))
        }
    };
    let Some(endpoint) = endpoint else {
        let network = if public { "kms" } else { "kms-vpc" };
        return in_the_cloud(&format!("{network}.{region}.aliyuncs.com"));
    };
    if is_kms_host(endpoint) {
        return in_the_cloud(endpoint);
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

/// The STS of a store: that of the pair, if the store's endpoint is one that the operator was told to allow; else that of
/// the region, on the same side of the VPC as the store's KMS.
///
/// `endpoint` is the store's, and `kms` what [`resolve`] made of it.
#[must_use]
pub fn resolve_sts(
    region: &str,
    public: bool,
    endpoint: Option<&str>,
    kms: &Origin,
    allowed: &[AllowedEndpoint],
) -> Origin {
    if let Some(pair) = paired(endpoint, kms, allowed) {
        return pair.sts.clone();
    }
    let is_public = public || endpoint.is_some_and(|host| host.starts_with("kms."));
    let network = if is_public { "sts" } else { "sts-vpc" };
    Origin::https(&format!("{network}.{region}.aliyuncs.com"))
}

/// The pair by which a store's endpoint is allowed, where it is not a host of KMS.
#[must_use]
pub fn paired<'a>(
    endpoint: Option<&str>,
    kms: &Origin,
    allowed: &'a [AllowedEndpoint],
) -> Option<&'a AllowedEndpoint> {
    endpoint.filter(|endpoint| !is_kms_host(endpoint))?;
    allowed.iter().find(|pair| pair.kms == *kms)
}

/// A host of STS, as an environment variable of the SDKs names it.
///
/// # Errors
/// A sentence that says which hosts are.
pub fn sts_host(host: &str) -> Result<Origin, String> {
    let name = host.strip_suffix(".aliyuncs.com").unwrap_or_default();
    let region = name
        .strip_prefix("sts-vpc.")
        .or_else(|| name.strip_prefix("sts."));
    if name == "sts" || region.is_some_and(is_region_in_hosts) {
        Ok(Origin::https(host))
    } else {
        Err(format!(
            "{host:?} is no host of STS: those are sts.aliyuncs.com and sts[-vpc].<region>.aliyuncs.com"
        ))
    }
}

/// The metadata service of ECS instances, or another one on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataEndpoint(String);

/// The address of the metadata service on every ECS instance; it speaks plain http only.
const METADATA: &str = "http://100.100.100.200";

impl FromStr for MetadataEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == METADATA {
            return Ok(Self(text.to_owned()));
        }
        let origin: Origin = text.parse()?;
        let url = Url::parse(text).map_err(|err| format!("{text:?} is not a URL: {err}"))?;
        if url.host().is_some_and(|host| is_loopback(&host)) {
            Ok(Self(origin.to_string()))
        } else {
            Err(format!("{text:?} is neither {METADATA} nor on loopback"))
        }
    }
}

impl fmt::Display for MetadataEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether it can be the name of an instance's role: it becomes a part of a path.
#[must_use]
pub fn is_instance_role(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
        // As parts of a path these are no names.
        && !matches!(name, "." | "..")
}

fn is_kms_host(host: &str) -> bool {
    let Some(name) = host.strip_suffix(".aliyuncs.com") else {
        return false;
    };
    if let Some(region) = name
        .strip_prefix("kms-vpc.")
        .or_else(|| name.strip_prefix("kms."))
    {
        return is_region_in_hosts(region);
    }
    host.strip_suffix(INSTANCES)
        .is_some_and(|id| is_label(id) && id.len() <= 63)
}

/// Whether it can be a region id, as `cn-hangzhou`.
#[must_use]
pub fn is_region(region: &str) -> bool {
    (2..=63).contains(&region.len()) && is_label(region)
}

/// Whether hosts are named after it. Every region id begins with two letters and a hyphen. A name that does not can be
/// that of a service whose hosts belong to customers: `kms.oss-cn-hangzhou.aliyuncs.com` is the bucket `kms` of whoever
/// took that name.
fn is_region_in_hosts(region: &str) -> bool {
    let continent = region.split_once('-').map(|(continent, _)| continent);
    is_region(region)
        && continent.is_some_and(|continent| {
            continent.len() == 2 && continent.bytes().all(|b| b.is_ascii_lowercase())
        })
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
            ("kms.oss-cn-hangzhou.aliyuncs.com", false),
            ("kms-vpc.oss-cn-hangzhou-internal.aliyuncs.com", false),
            ("kms.elasticsearch.aliyuncs.com", false),
            ("http://[::ffff:127.0.0.1]:8900", false),
            ("http://localhost:8900", false),
            ("http://127.0.0.1:8900#", false),
            ("http://127.0.0.1:8900?", false),
            ("http://user@127.0.0.1:8900", false),
            ("https://10.96.0.1:443", false),
            ("https://kubernetes.default.svc", false),
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
    fn a_region_never_makes_a_host_that_a_customer_can_have() {
        for region in [
            "oss-cn-hangzhou",
            "oss-accelerate",
            "vpc100-oss-cn-hangzhou",
            "img-cn-hangzhou",
            "elasticsearch",
            "cn",
            "c1-hangzhou",
        ] {
            let instance = "kst-1.cryptoservice.kms.aliyuncs.com";
            for endpoint in [None, Some("kms.cn-hangzhou.aliyuncs.com"), Some(instance)] {
                let said = origin(region, true, endpoint).unwrap_err();
                assert!(said.contains("region id"), "{region} {endpoint:?}: {said}");
            }
            assert!(sts_host(&format!("sts.{region}.aliyuncs.com")).is_err());
            // Where the administrator said which hosts there are, a region is a name.
            let own = Some("http://127.0.0.1:8900");
            assert!(origin(region, false, own).is_ok(), "{region}");
        }
        for region in ["cn-shanghai-finance-1", "us-east-1", "me-central-1"] {
            assert!(origin(region, false, None).is_ok(), "{region}");
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

    #[test]
    fn a_store_uses_the_sts_beside_its_kms() {
        let allowed: [AllowedEndpoint; 2] = [
            "http://127.0.0.1:8900".parse().unwrap(),
            "https://kms.internal=https://sts.internal".parse().unwrap(),
        ];
        for (public, endpoint, expected) in [
            (false, None, "https://sts-vpc.cn-hangzhou.aliyuncs.com"),
            (true, None, "https://sts.cn-hangzhou.aliyuncs.com"),
            (
                false,
                Some("kms.cn-hangzhou.aliyuncs.com"),
                "https://sts.cn-hangzhou.aliyuncs.com",
            ),
            (
                false,
                Some("kms-vpc.cn-hangzhou.aliyuncs.com"),
                "https://sts-vpc.cn-hangzhou.aliyuncs.com",
            ),
            (
                false,
                Some("kst-1.cryptoservice.kms.aliyuncs.com"),
                "https://sts-vpc.cn-hangzhou.aliyuncs.com",
            ),
            (
                false,
                Some("http://127.0.0.1:8900"),
                "http://127.0.0.1:8900",
            ),
            (false, Some("https://kms.internal"), "https://sts.internal"),
        ] {
            let kms = resolve("cn-hangzhou", public, endpoint, &allowed).unwrap();
            let sts = resolve_sts("cn-hangzhou", public, endpoint, &kms, &allowed);
            assert_eq!(sts.to_string(), expected, "{endpoint:?}");
        }
    }

    #[test]
    fn the_sts_of_a_pair_serves_only_the_stores_that_name_its_kms() {
        let odd = ["https://kms.cn-hangzhou.aliyuncs.com=https://sts.internal"
            .parse()
            .unwrap()];
        let kms = resolve("cn-hangzhou", true, None, &odd).unwrap();
        let sts = resolve_sts("cn-hangzhou", true, None, &kms, &odd);
        assert_eq!(sts.to_string(), "https://sts.cn-hangzhou.aliyuncs.com");
    }

    #[test]
    fn a_host_of_sts_is_exactly_one() {
        for (host, is_one) in [
            ("sts.aliyuncs.com", true),
            ("sts.cn-hangzhou.aliyuncs.com", true),
            ("sts-vpc.cn-hangzhou.aliyuncs.com", true),
            ("sts-vpc.aliyuncs.com", false),
            ("sts.a.b.aliyuncs.com", false),
            ("sts.oss-cn-hangzhou.aliyuncs.com", false),
            ("sts.cn-hangzhou.aliyuncs.com:443", false),
            ("https://sts.aliyuncs.com", false),
            ("sts.aliyuncs.com.evil.example", false),
            ("my-sts.aliyuncs.com", false),
            ("aliyuncs.com", false),
            ("", false),
        ] {
            assert_eq!(sts_host(host).is_ok(), is_one, "{host}");
        }
    }

    #[test]
    fn metadata_is_asked_of_the_instance_or_of_loopback() {
        for (endpoint, allowed) in [
            ("http://100.100.100.200", true),
            ("http://127.0.0.1:8900", true),
            ("http://[::1]:8900", true),
            ("http://169.254.169.254", false),
            ("https://metadata.example", false),
            ("http://100.100.100.200:80/x", false),
        ] {
            assert_eq!(
                endpoint.parse::<MetadataEndpoint>().is_ok(),
                allowed,
                "{endpoint}"
            );
        }
        assert!(is_instance_role("KubernetesWorkerRole-1.a"));
        for name in ["", ".", "..", "a/b", "../x", "a b", &"x".repeat(65)] {
            assert!(!is_instance_role(name), "{name}");
        }
    }
}
