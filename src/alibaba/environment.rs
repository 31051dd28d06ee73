//! Whose identity a process has by its environment: the variables of Alibaba Cloud's SDKs, as `ack-pod-identity-webhook`
//! sets them. Pure: who reads the environment is the caller.

use std::path::PathBuf;

use secrecy::SecretString;

use super::AccessKey;
use super::endpoint::{AllowedEndpoint, Origin, sts_host};

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The identity, if there is one.
    pub source: Option<Source>,
    /// The host of STS, if the environment names one.
    pub sts: Option<Origin>,
}

/// An identity out of the environment.
#[derive(Clone, Debug)]
pub enum Source {
    /// RRSA: a role, and a file with the token for it.
    Federated {
        /// ARN of the role.
        role_arn: String,
        /// ARN of the OIDC provider.
        provider_arn: String,
        /// The file, which is renewed by others and read each time.
        token_file: PathBuf,
        /// Name of the session.
        session_name: Option<String>,
    },
    /// An access key, permanent or of a session.
    Key(AccessKey),
}

/// Reads the environment by `get`: RRSA if all of it is there, else an access key; never further.
///
/// An STS of the pairs in `allowed` may be named, but serves only the stores of its pair, and those use it anyway.
///
/// # Errors
/// A sentence, if it names an STS that is none.
pub fn read(
    get: impl Fn(&'static str) -> Option<String>,
    allowed: &[AllowedEndpoint],
) -> Result<Environment, String> {
    let get = |name| get(name).filter(|value| !value.is_empty());
    let sts = match (
        get("ALIBABA_CLOUD_STS_ENDPOINT"),
        get("ALIBABA_CLOUD_STS_REGION"),
    ) {
        (Some(host), _) => Some(("ALIBABA_CLOUD_STS_ENDPOINT", host)),
        (None, Some(region)) => {
            let is_vpc = get("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED")
                .is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
            let network = if is_vpc { "sts-vpc" } else { "sts" };
            let host = format!("{network}.{region}.aliyuncs.com");
            Some(("ALIBABA_CLOUD_STS_REGION", host))
        }
        (None, None) => None,
    };
    let is_of_a_pair = |host: &str| {
        let origin = host.parse::<Origin>();
        origin.is_ok_and(|origin| allowed.iter().any(|pair| pair.sts == origin))
    };
    let sts = sts
        .filter(|(_, host)| !is_of_a_pair(host))
        .map(|(name, host)| sts_host(&host).map_err(|what| format!("{name}: {what}")));
    Ok(Environment {
        source: federated(&get).or_else(|| key(&get).map(Source::Key)),
        sts: sts.transpose()?,
    })
}

fn federated(get: &impl Fn(&'static str) -> Option<String>) -> Option<Source> {
    Some(Source::Federated {
        role_arn: get("ALIBABA_CLOUD_ROLE_ARN")?,
        provider_arn: get("ALIBABA_CLOUD_OIDC_PROVIDER_ARN")?,
        token_file: get("ALIBABA_CLOUD_OIDC_TOKEN_FILE")?.into(),
        session_name: get("ALIBABA_CLOUD_ROLE_SESSION_NAME"),
    })
}

fn key(get: &impl Fn(&'static str) -> Option<String>) -> Option<AccessKey> {
    let secret = |name| get(name).map(SecretString::from);
    Some(AccessKey {
        id: secret("ALIBABA_CLOUD_ACCESS_KEY_ID")?,
        secret: secret("ALIBABA_CLOUD_ACCESS_KEY_SECRET")?,
        security_token: secret("ALIBABA_CLOUD_SECURITY_TOKEN"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEDERATED: [(&str, &str); 3] = [
        ("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/operator"),
        (
            "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
            "acs:ram::1:oidc-provider/ack",
        ),
        ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", "/var/run/token"),
    ];
    const KEY: [(&str, &str); 2] = [
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "planted"),
    ];

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, String> {
        let get = |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let pair = "http://127.0.0.1:1=http://127.0.0.1:2".parse().unwrap();
        read(get, &[pair])
    }

    #[test]
    fn rrsa_goes_before_an_access_key_and_half_of_it_is_nothing() {
        let both = [&FEDERATED[..], &KEY[..]].concat();
        assert!(matches!(
            environment(&both).unwrap().source,
            Some(Source::Federated { .. })
        ));
        let half = [&FEDERATED[..2], &KEY[..]].concat();
        assert!(matches!(
            environment(&half).unwrap().source,
            Some(Source::Key(_))
        ));
        assert!(environment(&FEDERATED[1..]).unwrap().source.is_none());
        assert!(environment(&KEY[..1]).unwrap().source.is_none());
        assert!(
            environment(&[KEY[0], (KEY[1].0, "")])
                .unwrap()
                .source
                .is_none(),
            "an empty variable is none"
        );
        let shown = format!("{:?}", environment(&KEY).unwrap());
        assert!(!shown.contains("planted"));
    }

    #[test]
    fn sts_is_where_the_webhook_says() {
        let host = |variables: &[(&str, &str)]| {
            environment(variables)
                .map(|environment| environment.sts.map(|origin| origin.to_string()))
        };
        let (endpoint, region) = ("ALIBABA_CLOUD_STS_ENDPOINT", "ALIBABA_CLOUD_STS_REGION");
        let vpc = "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED";
        assert_eq!(host(&[]), Ok(None));
        assert_eq!(host(&[(vpc, "true")]), Ok(None));
        assert_eq!(
            host(&[(region, "cn-hangzhou")]),
            Ok(Some("https://sts.cn-hangzhou.aliyuncs.com".into()))
        );
        assert_eq!(
            host(&[(region, "cn-hangzhou"), (vpc, "true")]),
            Ok(Some("https://sts-vpc.cn-hangzhou.aliyuncs.com".into()))
        );
        assert_eq!(
            host(&[
                (region, "cn-hangzhou"),
                (endpoint, "sts-vpc.cn-beijing.aliyuncs.com")
            ]),
            Ok(Some("https://sts-vpc.cn-beijing.aliyuncs.com".into()))
        );
        assert_eq!(
            host(&[(endpoint, "http://127.0.0.1:2")]),
            Ok(None),
            "that of a pair is for the stores of the pair"
        );
        for wrong in [
            (endpoint, "evil.example"),
            (endpoint, "http://127.0.0.1:1"),
            (endpoint, "http://sts.aliyuncs.com"),
            (region, "a.evil.example/"),
        ] {
            let said = host(&[wrong]).unwrap_err();
            assert!(said.starts_with(wrong.0), "{said}");
        }
    }
}
