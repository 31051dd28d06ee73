//! How a secret is named: plainly, or by an ARN that also says where it is and whose.

use super::endpoint::is_region;

/// KMS allows no longer name.
const NAME_MAX: usize = 192;

/// A secret's name, and what an ARN tells besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretName<'a> {
    /// The region; only an ARN tells it.
    pub region: Option<&'a str>,
    /// The account; only an ARN tells it, and only where it is not masked.
    pub account: Option<&'a str>,
    /// The name within region and account.
    pub name: &'a str,
}

impl<'a> SecretName<'a> {
    /// Reads a name, or an ARN `acs:kms:<region>:<account>:secret/<name>`; `None` where it is neither.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let Some(arn) = text.strip_prefix("acs:kms:") else {
            return is_name(text).then_some(Self {
                region: None,
                account: None,
                name: text,
            });
        };
        let mut parts = arn.splitn(3, ':');
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let name = resource
            .strip_prefix("secret/")
            .filter(|name| is_name(name))?;
        Some(Self {
            region: is_region(region).then_some(region),
            account: is_account(account).then_some(account),
            name,
        })
    }
}

/// The name of a secret without region and account: what a batch may answer under. Unlike
/// [`SecretName::parse`] it takes any text.
#[must_use]
pub fn plain_name(secret_name: &str) -> &str {
    match secret_name.strip_prefix("acs:kms:") {
        Some(rest) => rest
            .split_once(":secret/")
            .map_or(secret_name, |(_, name)| name),
        None => secret_name,
    }
}

/// A name as KMS allows it: nothing in it can harm a log.
fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_/+=.@-".contains(&b);
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(fits)
}

/// An account id. The documents mask some digits of their samples: such an id says nothing.
#[must_use]
pub fn is_account(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_plainly_or_by_its_arn() {
        let named = |region, account, name| {
            Some(SecretName {
                region,
                account,
                name,
            })
        };
        for (text, expected) in [
            ("shop/db", named(None, None, "shop/db")),
            ("acs/ram/user/x", named(None, None, "acs/ram/user/x")),
            (
                "acs:kms:cn-hangzhou:123:secret/shop/db",
                named(Some("cn-hangzhou"), Some("123"), "shop/db"),
            ),
            (
                "acs:kms:cn-hangzhou:1889****:secret/db",
                named(Some("cn-hangzhou"), None, "db"),
            ),
            ("acs:kms:$region:1:secret/db", named(None, Some("1"), "db")),
            ("acs:kms:cn-hangzhou:123:key/k", None),
            ("acs:kms:cn-hangzhou:123:secret/", None),
            ("acs:kms:cn-hangzhou", None),
            ("acs:rds:cn-hangzhou:123:dbinstance/x", None),
            ("", None),
            ("a b", None),
            ("a\n", None),
        ] {
            assert_eq!(SecretName::parse(text), expected, "{text:?}");
        }
        assert!(SecretName::parse(&"x".repeat(192)).is_some());
        assert!(SecretName::parse(&"x".repeat(193)).is_none());
    }
}
