//! Whom a notice concerns, and what that may cost.

use super::bucket::Bucket;
use crate::alibaba::notice::Notice;
use crate::alibaba::secret_name::SecretName;
use crate::api::KmsSecret;

/// What a `KmsSecret` may cost by wishes from outside, hints and forced syncs: two reads at once, then one in 10 s. A
/// wish beyond that waits and is not lost.
pub type Wishes = Bucket<2, 10_000>;

/// Whether a notice is about a secret that the object reads; `region` is that of its store.
///
/// The account counts where both sides tell it: a source that is named plainly is of the store's own account, which is
/// not known here.
#[must_use]
pub fn concerns(notice: &Notice, object: &KmsSecret, region: &str) -> bool {
    object.secret_names().any(|source| {
        SecretName::parse(source).is_some_and(|source| {
            let is_same = |told: Option<&str>, known: Option<&str>| {
                told.zip(known).is_none_or(|(told, known)| told == known)
            };
            source.name == notice.secret_name
                && is_same(notice.region.as_deref(), source.region.or(Some(region)))
                && is_same(notice.account.as_deref(), source.account)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alibaba::notice::Kind;
    use serde_json::json;

    #[test]
    fn a_notice_concerns_those_who_read_that_secret_there() {
        let arn =
            |region: &str, account: &str| format!("acs:kms:{region}:{account}:secret/shop/db");
        let (here, ours) = (Some("cn-hangzhou"), Some("1"));
        for (source, region, account, expected) in [
            ("shop/db".to_owned(), None, None, true),
            ("shop/db".to_owned(), here, ours, true),
            ("shop/db".to_owned(), Some("cn-beijing"), ours, false),
            ("shop/d".to_owned(), here, ours, false),
            (arn("cn-hangzhou", "1"), None, None, true),
            (arn("cn-hangzhou", "1"), here, ours, true),
            (arn("cn-hangzhou", "2"), here, ours, false),
            (arn("cn-hangzhou", "2"), here, None, true),
            (arn("cn-beijing", "1"), here, ours, false),
            (arn("cn-beijing", "1"), Some("cn-beijing"), ours, true),
        ] {
            let object: KmsSecret = serde_json::from_value(json!({
                "apiVersion": "alikms.dev/v1alpha1", "kind": "KmsSecret", "metadata": {"name": "db"},
                "spec": {"storeRef": {"name": "prod"}, "source": {"secretName": source}},
            }))
            .unwrap();
            let notice = Notice {
                event_id: None,
                region: region.map(Into::into),
                account: account.map(Into::into),
                secret_name: "shop/db".into(),
                kind: Kind::Changed,
            };
            let is = concerns(&notice, &object, "cn-hangzhou");
            assert_eq!(is, expected, "{source} {region:?} {account:?}");
        }
    }
}
