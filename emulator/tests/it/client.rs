//! A small client: signs as the documents say, speaks HTTP by hand, sees what is really on the wire.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use hmac::{Hmac, KeyInit, Mac};
use kms_emulator::{Emulator, Options};
use serde_json::Value;
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(crate) const ID: &str = "LTAItest";
pub(crate) const SECRET: &str = "test-access-key-secret";

pub(crate) fn start() -> Emulator {
    let kms = Emulator::start_blocking(Options::default()).unwrap();
    kms.add_access_key(ID, SECRET);
    kms
}

/// An answer as it came.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["Code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn data(&self) -> String {
        self.json()["SecretData"].as_str().unwrap().to_owned()
    }
}

/// Sends bytes and reads until the connection ends.
pub(crate) fn send_raw(kms: &Emulator, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(kms.address())?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    tcp.write_all(request)?;
    let mut bytes = Vec::new();
    tcp.read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_lowercase(), value.to_owned())
    });
    Answer {
        status: status.parse().unwrap(),
        headers: headers.collect(),
        body: bytes[end + 4..].to_vec(),
    }
}

/// A call to be signed.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    pub(crate) action: String,
    pub(crate) version: String,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) nonce: String,
    pub(crate) time: String,
    pub(crate) method: &'static str,
    pub(crate) format: Option<&'static str>,
}

pub(crate) fn ask(kms: &Emulator, action: &str, params: &[(&str, &str)]) -> Ask {
    let is_sts = matches!(
        action,
        "GetCallerIdentity" | "AssumeRole" | "AssumeRoleWithOIDC"
    );
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Ask {
        id: ID.to_owned(),
        secret: SECRET.to_owned(),
        token: None,
        action: action.to_owned(),
        version: if is_sts { "2015-04-01" } else { "2016-01-20" }.to_owned(),
        params: params.iter().map(own).collect(),
        nonce: uuid::Uuid::new_v4().to_string(),
        time: kms.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        method: "POST",
        format: Some("JSON"),
    }
}

/// Temporary credentials in an answer.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
    pub(crate) expires: String,
}

impl Session {
    pub(crate) fn in_answer(answer: &Value) -> Self {
        let part = |name: &str| answer[name].as_str().unwrap().to_owned();
        Self {
            id: part("AccessKeyId"),
            secret: part("AccessKeySecret"),
            token: part("SecurityToken"),
            expires: part("Expiration"),
        }
    }

    pub(crate) fn sign(&self, ask: Ask) -> Ask {
        ask.key(&self.id, &self.secret, Some(&self.token))
    }
}

/// A request without a signature.
pub(crate) fn plain(kms: &Emulator, head: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers: String = headers
        .iter()
        .flat_map(|(name, value)| [name, ": ", value, "\r\n"])
        .collect();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: kms.test\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    parse(&send_raw(kms, request.as_bytes()).unwrap())
}

pub(crate) fn get(kms: &Emulator, name: &str) -> Ask {
    ask(kms, "GetSecretValue", &[("SecretName", name)])
}

impl Ask {
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.params.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn key(mut self, id: &str, secret: &str, token: Option<&str>) -> Self {
        id.clone_into(&mut self.id);
        secret.clone_into(&mut self.secret);
        self.token = token.map(str::to_owned);
        self
    }

    /// The request in V3, as bytes.
    pub(crate) fn v3(&self) -> Vec<u8> {
        let body_hash = hex(&Sha256::digest(b""));
        let mut headers = vec![
            ("host", "kms.test".to_owned()),
            ("x-acs-action", self.action.clone()),
            ("x-acs-content-sha256", body_hash.clone()),
            ("x-acs-date", self.time.clone()),
            ("x-acs-signature-nonce", self.nonce.clone()),
            ("x-acs-version", self.version.clone()),
        ];
        if let Some(token) = &self.token {
            headers.push(("x-acs-security-token", token.clone()));
        }
        headers.sort();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let query = query(&self.params);
        let lines = join(&headers, ":", "\n");
        let canonical = format!("{}\n/\n{query}\n{lines}\n{names}\n{body_hash}", self.method);
        let to_sign = format!("ACS3-HMAC-SHA256\n{}", hex(&Sha256::digest(canonical)));
        let mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).unwrap();
        let signature = hex(&mac.chain_update(to_sign).finalize().into_bytes());
        let (method, id) = (self.method, &self.id);
        let lines = join(&headers, ": ", "\r\n");
        format!(
            "{method} /?{query} HTTP/1.1\r\n{lines}\
             authorization: ACS3-HMAC-SHA256 Credential={id},SignedHeaders={names},Signature={signature}\r\n\
             connection: close\r\ncontent-length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    /// The request in V1, as bytes.
    pub(crate) fn v1(&self) -> Vec<u8> {
        let mut params = self.params.clone();
        let mut add = |name: &str, value: &str| params.push((name.to_owned(), value.to_owned()));
        add("Action", &self.action);
        add("Version", &self.version);
        add("AccessKeyId", &self.id);
        add("SignatureMethod", "HMAC-SHA1");
        add("SignatureVersion", "1.0");
        add("SignatureNonce", &self.nonce);
        add("Timestamp", &self.time);
        if let Some(format) = self.format {
            add("Format", format);
        }
        if let Some(token) = &self.token {
            add("SecurityToken", token);
        }
        let canonical = query(&params);
        let to_sign = format!("{}&%2F&{}", self.method, encode(&canonical));
        let key = format!("{}&", self.secret);
        let mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).unwrap();
        let signature = mac.chain_update(to_sign).finalize().into_bytes();
        let signature = encode(&base64::engine::general_purpose::STANDARD.encode(signature));
        let method = self.method;
        format!("{method} /?{canonical}&Signature={signature} HTTP/1.1\r\nhost: kms.test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .into_bytes()
    }

    pub(crate) fn send(&self, kms: &Emulator) -> Answer {
        parse(&send_raw(kms, &self.v3()).unwrap())
    }

    pub(crate) fn send_v1(&self, kms: &Emulator) -> Answer {
        parse(&send_raw(kms, &self.v1()).unwrap())
    }
}

pub(crate) fn query(params: &[(String, String)]) -> String {
    let mut params = params.to_vec();
    params.sort();
    let pairs = params
        .iter()
        .map(|(k, v)| format!("{}={}", encode(k), encode(v)));
    pairs.collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    let spell = |b: u8| {
        if keep(b) {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    };
    text.bytes().map(spell).collect()
}

fn join(headers: &[(&str, String)], between: &str, after: &str) -> String {
    let parts = headers
        .iter()
        .flat_map(|(name, value)| [*name, between, value, after]);
    parts.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, b| format!("{text}{b:02x}"))
}
