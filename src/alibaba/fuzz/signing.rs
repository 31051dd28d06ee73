//! Requests, signed by both methods.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use secrecy::ExposeSecret as _;

use super::*;
use crate::alibaba::sign::{Signed, canonical_query, encode, sign, unsigned};
use crate::alibaba::{AccessKey, Operation, SignatureMethod};

const METHODS: [SignatureMethod; 2] = [SignatureMethod::V3, SignatureMethod::V1];

/// Everything that a signature is of.
#[derive(Clone, Debug)]
struct Call {
    operation: Operation,
    host: String,
    id: String,
    secret: String,
    token: Option<String>,
    now: Timestamp,
    nonce: String,
}

impl Call {
    fn key(&self) -> AccessKey {
        AccessKey {
            id: self.id.as_str().into(),
            secret: self.secret.as_str().into(),
            security_token: self.token.as_deref().map(Into::into),
        }
    }

    fn sign(&self, method: SignatureMethod) -> Signed {
        sign(
            &self.operation,
            &self.host,
            &self.key(),
            method,
            self.now,
            &self.nonce,
        )
    }

    fn signature(&self, method: SignatureMethod) -> String {
        signature(&self.sign(method), method)
    }
}

fn signature(signed: &Signed, method: SignatureMethod) -> String {
    let text = match method {
        SignatureMethod::V1 => signed.query.expose_secret(),
        SignatureMethod::V3 => header(signed, "authorization").unwrap(),
    };
    text.rsplit_once("Signature=").unwrap().1.to_owned()
}

fn header<'a>(signed: &'a Signed, name: &str) -> Option<&'a str> {
    let mut headers = signed.headers.iter();
    let found = headers.find(|(key, _)| *key == name);
    found.map(|(_, value)| value.expose_secret())
}

/// As long as keys and tokens can be, of what a header takes.
fn visible() -> Text {
    vec(0x21..0x7f_u8, 1..40)
        .prop_map(|bytes| bytes.into_iter().map(char::from).collect())
        .boxed()
}

fn calls() -> impl Strategy<Value = Call> {
    let names = || select(vec!["SecretName", "VersionStage", "VersionId", "DryRun"]);
    let parameters = vec((names(), odd_text(40)), 0..4);
    let form = vec(
        (
            names(),
            odd_text(40).prop_map(|text| format!("{text}{PLANTED}")),
        ),
        0..3,
    );
    let now = (0..253_402_207_200_i64).prop_map(|seconds| Timestamp::from_second(seconds).unwrap());
    let (id, secret, token) = (visible(), odd_text(40), proptest::option::of(visible()));
    (parameters, form, id, secret, token, now, visible()).prop_map(
        |(parameters, form, id, secret, token, now, nonce)| Call {
            operation: Operation {
                action: "GetSecretValue",
                version: "2016-01-20",
                parameters,
                form: form
                    .into_iter()
                    .map(|(name, value)| (name, value.into()))
                    .collect(),
            },
            host: "kms.cn-hangzhou.aliyuncs.com".into(),
            id,
            secret: secret + PLANTED,
            token,
            now,
            nonce,
        },
    )
}

fn decoded(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            (decode(name), decode(value))
        })
        .collect()
}

fn borrowed(pairs: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

proptest! {
    #[test]
    fn a_canonical_query_is_sorted_and_decodes_to_what_it_was_made_of(
        (pairs, other) in vec((odd_text(12), odd_text(40)), 0..8).prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle()))
    ) {
        let query = canonical_query(borrowed(&pairs));
        let mut sorted = pairs.clone();
        sorted.sort();
        prop_assert_eq!(decoded(&query), sorted);
        prop_assert_eq!(canonical_query(borrowed(&other)), query.clone());
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.~%&=".contains(&b);
        prop_assert!(query.bytes().all(is_allowed), "{}", query);
    }

    #[test]
    fn encoding_is_undone_by_decoding_and_by_nothing_less(text in odd_text(60)) {
        let encoded = encode(&text);
        prop_assert_eq!(percent_decode_str(&encoded).decode_utf8().unwrap(), text.as_str());
        prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b)));
        let is_upper = |triple: &str| triple.bytes().take(2).all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        prop_assert!(encoded.split('%').skip(1).all(is_upper), "{}", encoded);
    }

    #[test]
    fn what_differs_is_signed_differently_and_the_same_the_same(call in calls()) {
        for method in METHODS {
            let signature = call.signature(method);
            prop_assert_eq!(&call.signature(method), &signature);
            let changes: [fn(&mut Call); 7] = [
                |call| call.secret.push('x'),
                |call| call.nonce.push('x'),
                |call| call.token = Some(call.token.clone().unwrap_or_default() + "x"),
                |call| call.now += jiff::SignedDuration::from_secs(1),
                |call| call.operation.action = "DescribeSecret",
                |call| call.operation.parameters.push(("VersionId", "x".into())),
                |call| call.operation.form.push(("VersionId", "x".into())),
            ];
            for change in changes {
                let mut other = call.clone();
                change(&mut other);
                prop_assert_ne!(&other.signature(method), &signature, "{:?}", other);
            }
            // Of a permanent key only the older one signs the id.
            let mut other = call.clone();
            other.id.push('x');
            let is_signed = method == SignatureMethod::V1 || call.token.is_some();
            prop_assert_eq!(other.signature(method) != signature, is_signed);
            // Only the newer one says to whom it speaks.
            let mut other = call.clone();
            other.host.push('x');
            prop_assert_eq!(other.signature(method) == signature, method == SignatureMethod::V1);
        }
    }

    #[test]
    fn a_request_can_be_sent_and_shows_its_secrets_to_nobody_else(call in calls()) {
        let mut requests: Vec<_> = METHODS.iter().map(|method| call.sign(*method)).collect();
        requests.push(unsigned(&call.operation, call.now));
        for signed in &requests {
            for (name, value) in &signed.headers {
                let sent = hyper::header::HeaderValue::from_str(value.expose_secret());
                prop_assert!(sent.is_ok() && *name == name.to_ascii_lowercase(), "{}", name);
            }
            let mut form: Vec<_> = call.operation.form.iter().map(|(k, v)| ((*k).to_owned(), v.expose_secret().to_owned())).collect();
            form.sort();
            prop_assert_eq!(decoded(signed.body.expose_secret()), form);
            prop_assert_eq!(header(signed, "content-type").is_some(), !signed.body.expose_secret().is_empty());
            let query = signed.query.expose_secret();
            prop_assert!(query.bytes().all(|b| b.is_ascii_graphic() && b != b'#'), "{}", query);
            let query = decoded(query);
            prop_assert!(call.operation.parameters.iter().all(|(k, v)| query.contains(&((*k).to_owned(), v.clone()))));
            // Neither the secret nor what is in the form is in a URL.
            prop_assert!(!query.iter().any(|(_, value)| reveals(value)));
        }
        let shown = format!("{:?} {:?}", call.key(), Operation { parameters: Vec::new(), ..call.operation.clone() });
        prop_assert!(!reveals(&shown) && !shown.contains(&call.secret), "{}", shown);
        let v3 = &requests[0];
        prop_assert_eq!(header(v3, "x-acs-security-token"), call.token.as_deref());
        let own = decoded(v3.query.expose_secret()).len();
        prop_assert_eq!(own, call.operation.parameters.len(), "nothing but parameters in a URL");
        let authorization = header(v3, "authorization").unwrap();
        for (name, _) in &v3.headers {
            let listed = authorization.split(['=', ';', ',']).any(|word| word == *name);
            prop_assert!(listed || *name == "authorization", "{} is not signed", name);
        }
    }
}
