//! OIDC providers, and whether a token is one of theirs.

use std::collections::HashMap;

use jiff::Timestamp;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use crate::clock::lock;
use crate::controls::Controls;
use crate::errors::{ApiError, error};

/// The one audience that is registered with every provider.
pub(crate) const AUDIENCE: &str = "sts.aliyuncs.com";

#[derive(Default)]
pub(crate) struct Providers(HashMap<String, Provider>);

struct Provider {
    issuer: String,
    keys: JwkSet,
}

/// What a token says, once it is believed.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenClaims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    aud: Audience,
    pub(crate) exp: f64,
    nbf: Option<f64>,
    pub(crate) iat: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn contains(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Many(audiences) => audiences.iter().any(|audience| audience == wanted),
        }
    }
}

impl Controls {
    // === OIDC

    /// Adds an OIDC provider with the keys that sign its tokens, in place of one of that ARN.
    pub fn add_oidc_provider(
        &self,
        arn: &str,
        issuer: &str,
        jwks_json: &str,
    ) -> Result<(), ApiError> {
        let keys = serde_json::from_str(jwks_json)
            .map_err(|_| error("InvalidParameter").message("That is no JWKS."))?;
        let issuer = issuer.to_owned();
        let provider = Provider { issuer, keys };
        lock(&self.providers).0.insert(arn.to_owned(), provider);
        Ok(())
    }
}

impl Providers {
    /// What the token says, if the provider has signed it and it is valid now.
    pub(crate) fn verify(
        &self,
        arn: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<TokenClaims, ApiError> {
        let provider = self
            .0
            .get(arn)
            .ok_or_else(|| error("EntityNotExist.OIDCProvider"))?;
        let claims = provider
            .decode(token)
            .ok_or_else(|| error("AuthenticationFail.OIDCToken.Invalid"))?;
        let invalid = |why: &str| Err(error("AuthenticationFail.OIDCToken.Invalid").message(why));
        if claims.iss != provider.issuer {
            return invalid("The issuer of the OIDC token is not that of the provider.");
        }
        if !claims.aud.contains(AUDIENCE) {
            return invalid("The audience of the OIDC token is not among the client IDs.");
        }
        let now = now.as_duration().as_secs_f64();
        if claims.nbf.is_some_and(|from| now < from) {
            return invalid("The OIDC token is not valid yet.");
        }
        if now >= claims.exp {
            return Err(error("AuthenticationFail.OIDCToken.Expired"));
        }
        Ok(claims)
    }
}

impl Provider {
    /// The claims, if one of the keys has signed them; times are not looked at, as the host's clock is not ours.
    fn decode(&self, token: &str) -> Option<TokenClaims> {
        let header = decode_header(token).ok()?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return None;
        }
        let mut checks = Validation::new(header.alg);
        checks.required_spec_claims.clear();
        checks.validate_exp = false;
        checks.validate_aud = false;
        let named = |key: &&Jwk| header.kid.is_none() || key.common.key_id == header.kid;
        self.keys.keys.iter().filter(named).find_map(|key| {
            let key = DecodingKey::from_jwk(key).ok()?;
            Some(decode(token, &key, &checks).ok()?.claims)
        })
    }
}
