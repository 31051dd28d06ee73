//! An issuer of tokens, for tests that have no Kubernetes API server.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::oidc::AUDIENCE;

/// Signs tokens as a Kubernetes API server does, with a key of its own.
pub struct TokenIssuer {
    issuer: String,
    key_id: String,
    key: SigningKey,
}

enum SigningKey {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl TokenIssuer {
    /// An issuer with a fresh RSA key, as API servers have it.
    pub fn rs256(issuer: &str) -> std::io::Result<Self> {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).map_err(std::io::Error::other)?;
        Ok(Self::new(issuer, SigningKey::Rsa(Box::new(key))))
    }

    /// An issuer with a fresh key on P-256, which is made much faster.
    pub fn es256(issuer: &str) -> std::io::Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(std::io::Error::other)?;
        Ok(Self::new(issuer, SigningKey::Ec(Box::new(key))))
    }

    fn new(issuer: &str, key: SigningKey) -> Self {
        Self {
            issuer: issuer.to_owned(),
            key_id: Uuid::new_v4().to_string(),
            key,
        }
    }

    /// What `iss` says.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key, as the JWKS endpoint gives it.
    #[must_use]
    pub fn jwks(&self) -> String {
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut key = match &self.key {
            SigningKey::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let (n, e) = (
                    n.big_endian_without_leading_zero(),
                    e.big_endian_without_leading_zero(),
                );
                json!({ "kty": "RSA", "n": number(n), "e": number(e) })
            }
            SigningKey::Ec(pair) => {
                // 4, and then both coordinates.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": number(x), "y": number(y) })
            }
        };
        key["use"] = "sig".into();
        key["alg"] = self.algorithm().into();
        key["kid"] = self.key_id.as_str().into();
        json!({ "keys": [key] }).to_string()
    }

    fn algorithm(&self) -> &'static str {
        match self.key {
            SigningKey::Rsa(_) => "RS256",
            SigningKey::Ec(_) => "ES256",
        }
    }

    /// A token for STS with that subject.
    #[must_use]
    pub fn token(&self, subject: &str, from: Timestamp, until: Timestamp) -> String {
        self.sign(&json!({
            "iss": self.issuer,
            "sub": subject,
            "aud": [AUDIENCE],
            "iat": from.as_second(),
            "nbf": from.as_second(),
            "exp": until.as_second(),
        }))
    }

    /// A token with those claims, right or wrong. Empty if the system has no randomness.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": self.algorithm(), "kid": self.key_id, "typ": "JWT" });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let random = SystemRandom::new();
        let signature = match &self.key {
            SigningKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let message = message.as_bytes();
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map(|()| signature)
            }
            SigningKey::Ec(pair) => pair
                .sign(&random, message.as_bytes())
                .map(|signature| signature.as_ref().to_vec()),
        };
        signature.map_or_else(
            |_| String::new(),
            |signature| format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)),
        )
    }
}
