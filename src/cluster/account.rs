//! `ServiceAccount`s: their consent, and tokens of theirs for STS.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::Resource as _;
use kube::api::PostParams;
use kube::core::Request;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::refusal::{CallError, unavailable};
use super::{Cluster, within_deadline};
use crate::sync::{Failure, Reason};

/// Who a token is for; no other service takes it.
const AUDIENCE: &str = "sts.aliyuncs.com";
/// The shortest life of a token that the API server gives. It is used at once and not kept.
const TOKEN_SECONDS: i64 = 600;

impl Cluster {
    /// Metadata of a `ServiceAccount`, or `None` if there is no such one.
    ///
    /// # Errors
    /// `KubernetesUnavailable`.
    pub async fn service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ObjectMeta>, Failure> {
        (self.observe)("get", "serviceaccounts");
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let answer = within_deadline(api.get_metadata_opt(name)).await;
        let found = answer.map_err(|err| unavailable(&err, "read a ServiceAccount"))?;
        Ok(found.map(|account| account.metadata))
    }

    /// A token of the `ServiceAccount` with this uid, for STS. Never one of the operator's own: with that, a store could
    /// act as the operator.
    ///
    /// # Errors
    /// `CredentialsNotAllowed` for our own, `CredentialsNotFound` if it is gone, `KubernetesUnavailable`.
    pub async fn token(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<SecretString, Failure> {
        #[derive(Deserialize)]
        struct Wire {
            status: WireStatus,
        }
        #[derive(Deserialize)]
        struct WireStatus {
            token: SecretString,
        }
        if self.own_name().await? == format!("system:serviceaccount:{namespace}:{name}") {
            return Err(Failure::new(
                Reason::CredentialsNotAllowed,
                format!(
                    "ServiceAccount {name:?} of namespace {namespace:?} is the operator's own, which stores never use by name"
                ),
                "make a ServiceAccount for the store; a ClusterKmsStore can use the operator's identity by auth.operator",
            ));
        }
        (self.observe)("create", "serviceaccounts/token");
        let what = format!("get a token of ServiceAccount {name:?} of namespace {namespace:?}");
        let unreadable = || unavailable(&CallError::Other, &what);
        // With the uid, one that was made anew since its consent was read gives no token.
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"uid": uid},
            "spec": {"audiences": [AUDIENCE], "expirationSeconds": TOKEN_SECONDS},
        });
        let request = Request::new(ServiceAccount::url_path(&(), Some(namespace)))
            .create_subresource(
                "token",
                name,
                &PostParams::default(),
                body.to_string().into(),
            )
            .map_err(|_| unreadable())?;
        let text: SecretString = match within_deadline(self.client.request_text(request)).await {
            Ok(text) => text.into(),
            Err(CallError::Api(status)) if status.is_not_found() || status.is_conflict() => {
                return Err(Failure::new(
                    Reason::CredentialsNotFound,
                    format!("ServiceAccount {name:?} of namespace {namespace:?} went away"),
                    "no action needed, if it was made anew: it is looked at again",
                ));
            }
            Err(err) => return Err(unavailable(&err, &what)),
        };
        let wire: Wire = serde_json::from_str(text.expose_secret()).map_err(|_| unreadable())?;
        Ok(wire.status.token)
    }

    /// The name that the API server knows us by; it does not change while we run.
    async fn own_name(&self) -> Result<&str, Failure> {
        let asked = self.own_name.get_or_try_init(|| async {
            (self.observe)("create", "selfsubjectreviews");
            let api: Api<SelfSubjectReview> = Api::all(self.client.clone());
            let (params, review) = (PostParams::default(), SelfSubjectReview::default());
            let answer = within_deadline(api.create(&params, &review)).await;
            let review =
                answer.map_err(|err| unavailable(&err, "ask who it is (SelfSubjectReview)"))?;
            let user = review.status.and_then(|status| status.user_info);
            user.and_then(|user| user.username)
                .ok_or_else(|| unavailable(&CallError::Other, "ask who it is (SelfSubjectReview)"))
        });
        asked.await.map(String::as_str)
    }
}
