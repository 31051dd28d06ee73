//! Who may tell us something: tokens and certificates, read again as long as we run, since mounted Secrets rotate.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, HeaderValue, header};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::config::Events;

/// Nobody guesses a token of so many characters.
const TOKEN_MIN: usize = 32;
/// In a rotation there are two: the old one and the new one.
const TOKENS_MAX: usize = 8;
/// The header in which `EventBridge` sends the token of an HTTP target.
const EVENTBRIDGE_TOKEN: &str = "x-eventbridge-signature-token";

/// A file that cannot be used. Nothing of its content is told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{} cannot be read", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// It holds no token, or too many.
    #[error("{} must hold one token a line, {TOKENS_MAX} at most", .0.display())]
    NotTokens(PathBuf),
    /// It holds a token that could be guessed, or not be sent.
    #[error(
        "{} must hold tokens of {TOKEN_MIN} printable ASCII characters or more: openssl rand -hex 32",
        .0.display()
    )]
    WeakToken(PathBuf),
    /// It holds no certificate.
    #[error("{} must hold certificates as PEM", .0.display())]
    NotCertificates(PathBuf),
    /// It holds no key.
    #[error("{} must hold a private key as PEM", .0.display())]
    NotKey(PathBuf),
    /// Key and certificate do not belong together.
    #[error("{} and {} do not belong together", .0.display(), .1.display())]
    Mismatch(PathBuf, PathBuf),
}

/// What a sender has to show: a token, a certificate, or both.
pub(super) struct Keys {
    tokens: Option<Tokens>,
    tls: Option<Tls>,
}

impl Keys {
    /// Reads the files that the flags name.
    pub(super) fn read(flags: &Events) -> Result<Self, Error> {
        let tokens = flags.event_token_file.clone().map(Tokens::read);
        let files = flags
            .event_tls_cert
            .clone()
            .zip(flags.event_tls_key.clone());
        let tls = files.map(|(certificates, key)| {
            Tls::read(TlsFiles {
                certificates,
                key,
                client_ca: flags.event_client_ca.clone(),
            })
        });
        Ok(Self {
            tokens: tokens.transpose()?,
            tls: tls.transpose()?,
        })
    }

    /// Reads all files again.
    pub(super) fn read_again(&self) {
        if let Some(tokens) = &self.tokens {
            tokens.read_again();
        }
        if let Some(tls) = &self.tls {
            tls.read_again();
        }
    }

    /// Whether the headers of a request show what has to be shown besides a certificate, which the connection showed.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        self.tokens
            .as_ref()
            .is_none_or(|tokens| tokens.admit(headers))
    }

    /// How a connection is secured, if it is.
    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        let tls = self.tls.as_ref()?;
        Some(
            tls.acceptor
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

/// Tokens, known by their digests: all are of one length then, and what is compared is not what is secret.
struct Tokens {
    file: PathBuf,
    digests: RwLock<Vec<[u8; 32]>>,
}

impl Tokens {
    fn read(file: PathBuf) -> Result<Self, Error> {
        let digests = RwLock::new(read_tokens(&file)?);
        Ok(Self { file, digests })
    }

    /// A file that can't be read any more admits nobody: taking it away must take effect.
    fn read_again(&self) {
        let read = read_tokens(&self.file);
        let mut digests = self.digests.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(err) = &read
            && !digests.is_empty()
        {
            tracing::error!(error = %err, "no notice of KMS is accepted until the token file is mended");
        }
        *digests = read.unwrap_or_default();
    }

    fn admit(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).and_then(bearer);
        let named = headers.get(EVENTBRIDGE_TOKEN).map(HeaderValue::as_bytes);
        let known = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        let is_known = |shown: &[u8]| {
            let shown = digest(shown);
            known
                .iter()
                .fold(Choice::from(0), |found, token| found | token.ct_eq(&shown))
        };
        [bearer, named]
            .into_iter()
            .flatten()
            .any(|shown| is_known(shown).into())
    }
}

/// The token of `Bearer <token>`.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn read_tokens(file: &Path) -> Result<Vec<[u8; 32]>, Error> {
    let bytes = std::fs::read(file)
        .map(Zeroizing::new)
        .map_err(|err| Error::Unreadable(file.to_owned(), err))?;
    let tokens: Vec<&[u8]> = bytes
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .collect();
    if !(1..=TOKENS_MAX).contains(&tokens.len()) {
        return Err(Error::NotTokens(file.to_owned()));
    }
    let is_strong =
        |token: &&[u8]| token.len() >= TOKEN_MIN && token.iter().all(u8::is_ascii_graphic);
    if !tokens.iter().all(is_strong) {
        return Err(Error::WeakToken(file.to_owned()));
    }
    Ok(tokens.into_iter().map(digest).collect())
}

struct TlsFiles {
    certificates: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// Our certificate, and whose certificates we trust.
struct Tls {
    files: TlsFiles,
    acceptor: RwLock<TlsAcceptor>,
    /// The files did not fit when they were last read, and that was told.
    is_stale: AtomicBool,
}

impl Tls {
    fn read(files: TlsFiles) -> Result<Self, Error> {
        let acceptor = RwLock::new(files.acceptor()?);
        Ok(Self {
            files,
            acceptor,
            is_stale: AtomicBool::new(false),
        })
    }

    /// Files that do not fit keep what was: they are replaced one after the other. Trust never grows by that.
    fn read_again(&self) {
        let read = self.files.acceptor();
        let was_stale = self.is_stale.swap(read.is_err(), Ordering::Relaxed);
        match read {
            Ok(acceptor) => {
                *self
                    .acceptor
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = acceptor;
            }
            Err(err) if !was_stale => {
                tracing::warn!(error = %err, "the last certificates stay in use for notices of KMS");
            }
            Err(_) => {}
        }
    }
}

impl TlsFiles {
    fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let provider = Arc::new(default_provider());
        let mismatch = |other: &Path| Error::Mismatch(self.certificates.clone(), other.to_owned());
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|_| Error::NotKey(self.key.clone()))?;
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|_| mismatch(&self.key))?;
        let config = match &self.client_ca {
            None => config.with_no_client_auth(),
            Some(file) => {
                let unusable = || Error::NotCertificates(file.clone());
                let mut roots = RootCertStore::empty();
                for certificate in read_certificates(file)? {
                    roots.add(certificate).map_err(|_| unusable())?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|_| unusable())?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let mut config = config
            .with_single_cert(read_certificates(&self.certificates)?, key)
            .map_err(|_| mismatch(&self.key))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config).into())
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    certificates
        .ok()
        .filter(|certificates: &Vec<_>| !certificates.is_empty())
        .ok_or_else(|| Error::NotCertificates(file.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    /// A folder of its own, gone with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    fn by_token(file: PathBuf) -> Result<Keys, Error> {
        Keys::read(&Events {
            event_token_file: Some(file),
            ..Events::default()
        })
    }

    #[test]
    fn a_token_is_shown_in_one_of_two_headers() {
        let folder = Folder::new();
        let keys = by_token(folder.file("t", &format!("{TOKEN}\n  next-{TOKEN} \n\n"))).unwrap();
        for (name, value, is_known) in [
            ("authorization", format!("Bearer {TOKEN}"), true),
            ("authorization", format!("bearer  {TOKEN}"), true),
            ("authorization", format!("Bearer next-{TOKEN}"), true),
            ("x-eventbridge-signature-token", TOKEN.to_owned(), true),
            ("authorization", TOKEN.to_owned(), false),
            ("authorization", format!("Basic {TOKEN}"), false),
            ("authorization", format!("Bearer {TOKEN}x"), false),
            ("authorization", format!("Bearer {}", &TOKEN[1..]), false),
            ("authorization", "Bearer ".to_owned(), false),
            ("x-eventbridge-signature-token", String::new(), false),
            ("x-token", TOKEN.to_owned(), false),
        ] {
            assert_eq!(
                keys.admit(&headers(name, &value)),
                is_known,
                "{name}: {value}"
            );
        }
        assert!(!keys.admit(&HeaderMap::new()));
    }

    #[test]
    fn a_file_without_strong_tokens_is_refused_and_not_quoted() {
        let folder = Folder::new();
        let many = format!("{TOKEN}\n").repeat(9);
        let strange = format!("{TOKEN}\u{e9}");
        for text in [
            "",
            "\n \n",
            "short",
            &many,
            &strange,
            &format!("{TOKEN} {TOKEN}"),
        ] {
            let told = by_token(folder.file("t", text)).err().unwrap().to_string();
            assert!(
                text.trim().is_empty() || !told.contains(text.trim()),
                "{told}"
            );
        }
        assert!(matches!(
            by_token(folder.0.join("none")),
            Err(Error::Unreadable(..))
        ));
    }

    #[test]
    fn a_token_file_that_goes_admits_nobody_and_is_believed_when_it_comes_back() {
        let folder = Folder::new();
        let file = folder.file("t", TOKEN);
        let keys = by_token(file.clone()).unwrap();
        let ours = headers("authorization", &format!("Bearer {TOKEN}"));
        std::fs::remove_file(file).unwrap();
        keys.read_again();
        assert!(!keys.admit(&ours));
        folder.file("t", TOKEN);
        keys.read_again();
        assert!(keys.admit(&ours));
    }

    #[test]
    fn certificates_that_do_not_fit_are_refused_at_first_and_passed_over_later() {
        let folder = Folder::new();
        let make = || generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let CertifiedKey { cert, signing_key } = make();
        let (pem, key, other) = (
            cert.pem(),
            signing_key.serialize_pem(),
            make().signing_key.serialize_pem(),
        );
        let read = |certificate: &str, key: &str, ca: &str| {
            Keys::read(&Events {
                event_tls_cert: Some(folder.file("crt", certificate)),
                event_tls_key: Some(folder.file("key", key)),
                event_client_ca: Some(folder.file("ca", ca)),
                ..Events::default()
            })
        };
        assert!(matches!(read(&pem, &other, &pem), Err(Error::Mismatch(..))));
        assert!(matches!(read(&pem, "", &pem), Err(Error::NotKey(_))));
        assert!(matches!(
            read("", &key, &pem),
            Err(Error::NotCertificates(_))
        ));
        assert!(matches!(
            read(&pem, &key, &key),
            Err(Error::NotCertificates(_))
        ));
        let keys = read(&pem, &key, &pem).unwrap();
        let before = keys.acceptor().unwrap();
        folder.file("key", &other);
        keys.read_again();
        assert!(Arc::ptr_eq(
            before.config(),
            keys.acceptor().unwrap().config()
        ));
        folder.file("key", &key);
        keys.read_again();
        assert!(!Arc::ptr_eq(
            before.config(),
            keys.acceptor().unwrap().config()
        ));
    }
}
