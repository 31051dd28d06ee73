//! What the service refuses with: codes, statuses and texts.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An error answer of KMS, STS or the gateway before them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The `Code` field.
    pub code: String,
    /// The `Message` field.
    pub message: String,
    /// Further fields of the body, such as `AccessDeniedDetail`.
    #[serde(default)]
    pub extra: Map<String, Value>,
    /// Further headers of the answer, such as `x-acs-retry-after`.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// The error of that code with its documented status and text; an unknown code is a 400.
#[must_use]
pub fn error(code: &str) -> ApiError {
    let (status, message) = TABLE
        .iter()
        .find(|row| row.0 == code)
        .map_or((400, "The request was refused."), |row| (row.1, row.2));
    ApiError {
        status,
        code: code.to_owned(),
        message: message.to_owned(),
        extra: Map::new(),
        headers: Vec::new(),
    }
}

/// Every code that the emulator knows by name, with its status.
pub fn known_errors() -> impl Iterator<Item = (&'static str, u16)> {
    TABLE.iter().map(|row| (row.0, row.1))
}

impl ApiError {
    /// Another text.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Another status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// A further field of the body.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.extra.insert(field.to_owned(), value);
        self
    }

    /// A further header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The error body; the service's own errors and the gateway's have different fields.
    pub(crate) fn body(&self, request_id: &str, host: &str) -> Map<String, Value> {
        let mut body = Map::new();
        let mut put = |field: &str, value: Value| body.insert(field.to_owned(), value);
        put("RequestId", request_id.into());
        put("Code", self.code.as_str().into());
        put("Message", self.message.as_str().into());
        if is_of_service(&self.code) {
            put("HttpStatus", self.status.into());
        } else {
            put("HostId", host.into());
            let advice = format!("https://api.aliyun.com/troubleshoot?q={}", self.code);
            put("Recommend", advice.into());
        }
        body.extend(self.extra.clone());
        body
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

fn is_of_service(code: &str) -> bool {
    code.starts_with("Rejected.")
        || matches!(code, "InternalFailure" | "ServiceUnavailableTemporary")
}

/// Code, status, text. Statuses that no document gives are 400 where the code belongs to the gateway.
#[rustfmt::skip]
const TABLE: &[(&str, u16, &str)] = &[
    ("Forbidden.ResourceNotFound", 404, "Resource not found."),
    ("Forbidden.KeyNotFound", 404, "The specified Key is not found."),
    ("Forbidden.KeyVersionNotFound", 404, "The specified key version is not found."),
    ("Forbidden.AliasNotFound", 404, "The specified Alias is not found."),
    ("Forbidden.NoPermission", 403, "This operation is forbidden by permission system."),
    ("Forbidden.AccessKey", 403, "The specified access key is not enabled."),
    ("Forbidden.DKMSInstanceStateInvalid", 403, "The DKMS instance state is invalid."),
    ("Forbidden.DKMSInstanceNotFound", 403, "The specified DKMS Instance is not found."),
    ("Forbidden.InDebt", 403, "The account has an overdue payment."),
    ("Forbidden.InDebtOverdue", 403, "The account has been overdue for too long."),
    ("Forbidden.KmsServiceNotEnabled", 403, "The KMS service is not enabled."),
    ("Forbidden.ProhibitedByRiskControl", 403, "This operation is prohibited by risk control."),
    ("Forbidden.UbsmsInvalidUserid", 403, "The account state does not allow the call."),
    ("Forbidden.UbsmsInvalidBid", 403, "The account state does not allow the call."),
    ("UnsupportedHTTPMethod", 403, "This http method is not supported."),
    ("Rejected.Disabled", 409, "The request was rejected because the key state is Disabled."),
    ("Rejected.PendingDeletion", 409, "The request was rejected because the key state is PendingDeletion."),
    ("Rejected.PendingImport", 409, "The request was rejected because the key state is PendingImport."),
    ("Rejected.StateModifiedFailed", 409, "The state could not be changed."),
    ("Rejected.Unavailable", 409, "The request was rejected because the key is unavailable."),
    ("Rejected.ResourceExist", 409, "The specified resource already exists."),
    ("Rejected.LimitExceeded", 400, "The quota is used up."),
    ("Rejected.Throttling", 429, "QPS Limit Exceeded"),
    ("Throttling", 400, "Request was denied due to request throttling."),
    ("Throttling.User", 400, "Request was denied due to user flow control."),
    ("Throttling.Api", 400, "Request was denied due to api flow control."),
    ("ServiceUnavailableTemporary", 503, "Service Unavailable Temporary."),
    ("InternalFailure", 500, "Internal Failure."),
    ("InternalError", 500, "The request processing has failed due to some unknown error."),
    ("InvalidAccessKeyId.NotFound", 404, "Specified access key is not found."),
    ("InvalidAccessKeyId.Inactive", 400, "Specified access key is disabled."),
    ("SignatureDoesNotMatch", 400, "Specified signature is not matched with our calculation."),
    ("IncompleteSignature", 400, "The request signature does not conform to Aliyun standards."),
    ("SignatureNonceUsed", 400, "The request signature nonce has been used."),
    ("InvalidTimeStamp.Expired", 400, "Specified time stamp or date value is expired."),
    ("IllegalTimestamp", 400, "The input parameter \"Timestamp\" that is mandatory for processing this request is not supplied or invalid."),
    ("InvalidSecurityToken.Expired", 400, "Specified SecurityToken is expired."),
    ("InvalidSecurityToken.Malformed", 400, "Specified SecurityToken is malformed."),
    ("InvalidSecurityToken.MismatchWithAccessKey", 400, "Specified SecurityToken mismatch with the AccessKey."),
    ("MissingSecurityToken", 400, "SecurityToken is mandatory for this action."),
    ("MissingParameter", 400, "A parameter that is mandatory for this request is missing."),
    ("InvalidParameter", 400, "The specified parameter is not valid."),
    ("ParseRequestParameterException", 400, "The request parameters could not be parsed."),
    ("UnsupportedOperation", 400, "This action is not supported."),
    ("InvalidAction.NotFound", 404, "Specified api is not found, please check your url and method."),
    ("InvalidVersion", 400, "Specified parameter Version is not valid."),
    ("DryRunOperationError", 400, "Request would have succeeded, but DryRun flag is set."),
    ("ValidationError", 400, "A parameter of the request is wrong."),
    ("AccessDeniedError", 403, "You are not allowed to do this on the resource."),
    ("NoPermission", 403, "You are not authorized to do this action. You should be authorized by RAM."),
    ("EntityNotExist.Role", 404, "The role not exists."),
    ("InvalidParameter.RoleArn", 400, "The parameter RoleArn is wrongly formed."),
    ("InvalidParameter.RoleSessionName", 400, "The parameter RoleSessionName is wrongly formed."),
    ("InvalidParameter.DurationSeconds", 400, "The Min/Max value of DurationSeconds is 15min/1hr."),
    ("InvalidParameter.PolicyGrammar", 400, "The parameter Policy has not passed grammar check."),
    ("InvalidParameter.PolicySize", 400, "The size of Policy must be smaller than 1024 bytes."),
    ("EntityNotExist.OIDCProvider", 404, "The OIDC provider does not exist."),
    ("InvalidParameter.ExternalId", 400, "The parameter ExternalId is wrongly formed."),
    ("InvalidParameter.OIDCProviderArn", 400, "The parameter OIDCProviderArn is wrongly formed."),
    ("InvalidParameter.OIDCToken", 400, "The parameter OIDCToken is wrongly formed."),
    ("AuthenticationFail.NoPermission", 403, "You are not authorized to assume the role with this OIDC token."),
    ("AuthenticationFail.OIDCToken.Expired", 400, "This JWT Token is expired."),
    ("AuthenticationFail.OIDCToken.Invalid", 400, "This JWT Token is invalid."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_code_has_its_status_and_an_unknown_one_is_a_400() {
        assert_eq!(error("Rejected.Throttling").status, 429);
        assert_eq!(error("Forbidden.ResourceNotFound").status, 404);
        assert_eq!(error("Something.New").status, 400);
    }

    #[test]
    fn the_services_own_errors_carry_the_status_in_the_body() {
        let body = error("Rejected.Throttling").body("r", "h");
        assert_eq!(body["HttpStatus"], 429);
        assert!(!body.contains_key("HostId"));
        assert_eq!(error("Throttling.User").body("r", "h")["HostId"], "h");
    }
}
