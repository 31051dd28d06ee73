//! The filters that secrets need and minijinja does not bring, or brings for web pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bcrypt::Version;
use minijinja::{Environment, Error, ErrorKind, State, Value};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::document::to_text;
use crate::alibaba::secret_value::decode_base64;
use crate::alibaba::sign::encode;

/// The cost of a hash where none is given, and the least,
const COST: u32 = 10;
/// and the most: each step doubles the time on a worker that others wait for.
const COST_MAX: u32 = 12;
/// What all hashes of one `KmsSecret` may cost together: four of the default, or one of the most.
const ROUNDS_MAX: u32 = 1 << COST_MAX;
/// bcrypt reads no more than this, and ends at a NUL in most programs.
const PASSWORD_MAX: usize = 71;
/// One unit of fuel pays for so many bytes of JSON.
const JSON_PER_FUEL: usize = 4;

/// Why a filter refuses what it was given; the only words of a failed evaluation that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Complaint {
    #[error("something that is null or not there cannot be written")]
    Nothing,
    #[error("a number is larger than what a JSON number keeps exactly: store it as text in KMS")]
    Unwritable,
    #[error("b64decode got what is no Base64 (standard alphabet, padded)")]
    NotBase64,
    #[error(
        "b64decode made bytes that are no text: leave it out, and set decode: Base64 on the key"
    )]
    NotText,
    #[error("bcrypt and htpasswd take a cost of 10 to 12")]
    Cost,
    #[error("one KmsSecret has at most four hashes of cost 10, two of 11, or one of 12")]
    TooManyHashes,
    #[error("bcrypt and htpasswd take a password of 1 to 71 bytes without NUL")]
    Password,
    #[error("htpasswd takes a user without a colon, a space or a line break")]
    User,
}

impl From<Complaint> for Error {
    fn from(complaint: Complaint) -> Self {
        Self::new(ErrorKind::InvalidOperation, "").with_source(complaint)
    }
}

/// Adds the filters. `uid` is what the salts of hashes are made of.
pub(super) fn add(env: &mut Environment<'_>, uid: &str) {
    env.add_filter("b64encode", |value: &Value| {
        written(value).map(|text| BASE64_STANDARD.encode(text.expose_secret()))
    });
    env.add_filter("b64decode", b64decode);
    env.add_filter("urlencode", |value: &Value| {
        written(value).map(|text| encode(text.expose_secret()))
    });
    env.add_filter("tojson", tojson);
    env.add_filter("quote", |state: &State, value: &Value| {
        let text = written(value)?;
        tojson(state, &Value::from(text.expose_secret()))
    });
    let hashes = Hashes {
        uid: uid.into(),
        rounds: Arc::default(),
    };
    let plain = hashes.clone();
    env.add_filter(
        "bcrypt",
        move |state: &mut State, value: &Value, cost: Option<u32>| {
            plain.hash(state, value, cost, Version::TwoB)
        },
    );
    env.add_filter(
        "htpasswd",
        move |state: &mut State, value: &Value, user: &Value, cost: Option<u32>| {
            let user = written(user)?;
            let user = user.expose_secret();
            if user.is_empty() || user.contains(|c: char| c == ':' || c <= ' ') {
                return Err(Complaint::User.into());
            }
            let hash = hashes.hash(state, value, cost, Version::TwoY)?;
            Ok(format!("{user}:{hash}"))
        },
    );
}

/// A value as the text that is written of it: the same as a path would.
pub(super) fn written(value: &Value) -> Result<SecretString, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    to_text(value)
        .map_err(|_| Complaint::Unwritable)?
        .ok_or_else(|| Complaint::Nothing.into())
}

fn b64decode(value: &Value) -> Result<String, Error> {
    let bytes = decode_base64(written(value)?.expose_secret()).map_err(|_| Complaint::NotBase64)?;
    let text = std::str::from_utf8(bytes.expose_secret()).map_err(|_| Complaint::NotText)?;
    Ok(text.to_owned())
}

/// Compact JSON, without the escapes that web pages need.
fn tojson(state: &State, value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    let json = serde_json::to_string(value).map_err(|_| Complaint::Unwritable)?;
    pay(state, &json)?;
    Ok(json)
}

/// Takes the fuel for JSON that was made.
pub(super) fn pay(state: &State, json: &str) -> Result<(), Error> {
    state.consume_fuel((json.len() / JSON_PER_FUEL) as u64)
}

/// Makes bcrypt hashes whose salts are the same each time, or every sync would write another hash.
#[derive(Clone)]
struct Hashes {
    uid: Arc<str>,
    rounds: Arc<AtomicU32>,
}

impl Hashes {
    fn hash(
        &self,
        state: &mut State<'_, '_>,
        value: &Value,
        cost: Option<u32>,
        version: Version,
    ) -> Result<String, Error> {
        let cost = cost.unwrap_or(COST);
        if !(COST..=COST_MAX).contains(&cost) {
            return Err(Complaint::Cost.into());
        }
        let password = written(value)?;
        let password = password.expose_secret();
        if password.is_empty() || password.len() > PASSWORD_MAX || password.contains('\0') {
            return Err(Complaint::Password.into());
        }
        let rounds = 1 << cost;
        if self.rounds.fetch_add(rounds, Ordering::Relaxed) + rounds > ROUNDS_MAX {
            return Err(Complaint::TooManyHashes.into());
        }
        let salt = self.salt(state);
        let hash = bcrypt::non_truncating_hash_with_salt(password, cost, salt)
            .map_err(|_| Complaint::Password)?;
        Ok(hash.format_for_version(version))
    }

    /// Made of the object, the key and the hash's place in it, and of nothing that is secret: a salt is there for all to
    /// read, and one made of the password would help to guess it.
    fn salt(&self, state: &mut State<'_, '_>) -> [u8; 16] {
        const COUNT: &str = "hashes";
        let count = state
            .get_temp(COUNT)
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or_default();
        state.set_temp(COUNT, Value::from(count + 1));
        let mut digest = Sha256::new();
        for part in ["alikms.dev bcrypt", &*self.uid, state.name()] {
            digest.update(part);
            digest.update([0]);
        }
        digest.update(count.to_be_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        let mut salt = [0; 16];
        salt.copy_from_slice(&digest[..16]);
        salt
    }
}
