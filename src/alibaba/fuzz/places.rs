//! Endpoints, names and flags that somebody hopes lead elsewhere.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use regex::Regex;
use url::Url;

use super::{PLANTED, Text, damaged, odd_text, reveals, words};
use crate::alibaba::client::Client;
use crate::alibaba::endpoint::{
    AllowedEndpoint, MetadataEndpoint, Origin, resolve, resolve_sts, sts_host,
};
use crate::alibaba::environment;
use crate::alibaba::secret_name::{SecretName, plain_name};

/// What the operator was started with.
const ALLOWED: [&str; 3] = [
    "http://127.0.0.1:8900",
    "https://kms.internal:8443=https://sts.internal",
    "https://[fd00::1]:8443",
];

fn allowed() -> Vec<AllowedEndpoint> {
    ALLOWED.map(|pair| pair.parse().unwrap()).to_vec()
}

/// The hosts of KMS, in other words than the code's.
static KMS: LazyLock<Regex> = LazyLock::new(|| {
    let hosts = r"^(kms(-vpc)?\.[a-z]{2}-[a-z0-9-]{0,60}|[a-z0-9][a-z0-9-]{0,62}\.cryptoservice\.kms)\.aliyuncs\.com$";
    Regex::new(hosts).unwrap()
});
static STS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^sts((-vpc)?\.[a-z]{2}-[a-z0-9-]{0,60})?\.aliyuncs\.com$").unwrap()
});

/// An endpoint of the good ones, some with a piece put in somewhere, and such that are made of pieces.
fn endpoint() -> Text {
    let good = words(
        "kms.cn-hangzhou.aliyuncs.com · kms-vpc.eu-central-1.aliyuncs.com · kst-1.cryptoservice.kms.aliyuncs.com · \
        http://127.0.0.1:8900 · https://kms.internal:8443 · https://[fd00::1]:8443 · sts.cn-hangzhou.aliyuncs.com · \
        sts.aliyuncs.com · http://100.100.100.200",
    );
    let piece = words(
        "http:// · https:// · HTTP:// · // · \\ · / · @ · user@ · user:pass@ · # · ? · : · :443 · :80 · :8900 · . · 。 · ． · \
        kms · -vpc · oss- · evil.example · 127.0.0.1 · 127.1 · 0x7f.1 · 2130706433 · 017700000001 · localhost · [::1] · \
        [::ffff:127.0.0.1] · [::ffff:7f00:1] · [::127.0.0.1] · 100.100.100.200 · 169.254.169.254 · [fd00:ec2::254] · \
        [::ffff:169.254.169.254] · 10.96.0.1 · kubernetes.default.svc · ０ · ⓚⓜⓢ · K · ſ · %2e · %00 · \t · \n ·   · \u{ad} · \u{200d} · \
        .aliyuncs.com · .aliyuncs.com.",
    );
    let mixed = (
        good.clone(),
        any::<prop::sample::Index>(),
        piece.clone(),
        any::<bool>(),
    );
    let mixed = mixed.prop_map(|(mut text, at, piece, is_in_place)| {
        let places: Vec<_> = text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect();
        let from = places[at.index(places.len())];
        let to = if is_in_place {
            (from + piece.len()).min(text.len())
        } else {
            from
        };
        text.replace_range(from..to, &piece);
        text
    });
    let made = vec(piece, 1..6).prop_map(|all| all.concat());
    prop_oneof![2 => good, 6 => mixed, 2 => made, 1 => odd_text(30)].boxed()
}

/// A certificate, as PEM.
fn pem() -> String {
    let made = rcgen::generate_simple_self_signed(["kms.internal".to_owned()]).unwrap();
    made.cert.pem()
}

static CLIENT: LazyLock<Client> =
    LazyLock::new(|| Client::new(|| jiff::Timestamp::UNIX_EPOCH, |_| ()).unwrap());
static PEM: LazyLock<String> = LazyLock::new(pem);

proptest! {
    #[test]
    fn whatever_is_accepted_is_a_host_of_kms_or_what_the_operator_allows(
        endpoint in endpoint(), region in prop_oneof![4 => Just("cn-hangzhou".to_owned()), 1 => odd_text(8)], public in any::<bool>()
    ) {
        let allowed = allowed();
        match resolve(&region, public, Some(&endpoint), &allowed) {
            Ok(origin) => {
                let sent = Url::parse(&format!("{origin}/?SecretName=a")).unwrap();
                let sts = resolve_sts(&region, public, Some(&endpoint), &origin, &allowed);
                if KMS.is_match(&endpoint) {
                    prop_assert_eq!(sent.host_str(), Some(&*endpoint));
                    prop_assert_eq!((sent.scheme(), sent.port()), ("https", None));
                    prop_assert!(STS.is_match(sts.authority()), "{}", sts);
                } else {
                    let pair = allowed.iter().find(|pair| pair.kms == origin);
                    prop_assert_eq!(pair.map(|pair| &pair.sts), Some(&sts));
                    let meant = Url::parse(&endpoint).unwrap();
                    prop_assert_eq!(meant.origin(), sent.origin());
                    prop_assert!(meant.username().is_empty() && meant.password().is_none() && meant.path() == "/");
                }
            }
            Err(why) => prop_assert!(!why.contains(char::is_control) || region.contains(char::is_control), "{}", why),
        }
    }

    #[test]
    fn an_origin_that_is_read_is_written_as_it_is_reached(text in endpoint()) {
        if let Ok(origin) = text.parse::<Origin>() {
            let written = origin.to_string();
            prop_assert_eq!(written.parse::<Origin>(), Ok(origin));
            let url = Url::parse(&written).unwrap();
            let is_loopback = match url.host().unwrap() {
                url::Host::Ipv4(ip) => ip.is_loopback(),
                url::Host::Ipv6(ip) => ip.is_loopback(),
                url::Host::Domain(name) => name == "localhost",
            };
            prop_assert!(url.scheme() == "https" || is_loopback, "{}", written);
        }
        if let Ok(metadata) = text.parse::<MetadataEndpoint>() {
            let written = metadata.to_string();
            prop_assert!(written == "http://100.100.100.200" || Url::parse(&written).unwrap().host_str().unwrap() != "100.100.100.200");
            prop_assert_eq!(written.parse::<MetadataEndpoint>(), Ok(metadata));
        }
        if let Ok(origin) = sts_host(&text) {
            prop_assert!(STS.is_match(&text));
            prop_assert_eq!(origin.to_string(), format!("https://{}", text));
        }
    }

    #[test]
    fn a_flag_is_a_pair_of_origins_or_refused_in_a_line(kms in endpoint(), sts in proptest::option::of(endpoint())) {
        let text = sts.as_ref().map_or(kms.clone(), |sts| format!("{kms}={sts}"));
        match text.parse::<AllowedEndpoint>() {
            Ok(pair) => {
                let again = format!("{}={}", pair.kms, pair.sts);
                prop_assert_eq!(again.parse::<AllowedEndpoint>(), Ok(pair));
            }
            Err(why) => prop_assert!(!why.contains(char::is_control), "{}", why),
        }
    }

    #[test]
    fn a_name_holds_harmless_characters_only(text in prop_oneof!["(acs:kms:)?.{0,40}(secret/)?.{0,40}", super::name()]) {
        if let Some(parsed) = SecretName::parse(&text) {
            prop_assert!(parsed.name.bytes().all(|b| b.is_ascii_graphic() && b != b'"'));
            prop_assert_eq!(plain_name(&text), parsed.name);
            let clean = |word: Option<&str>| word.is_none_or(|word| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
            prop_assert!(clean(parsed.region) && clean(parsed.account));
        }
    }

    #[test]
    fn no_environment_makes_another_host_of_sts_or_is_shown(
        sts in proptest::option::of(endpoint()), region in proptest::option::of(odd_text(12)), vpc in odd_text(5), id in odd_text(9)
    ) {
        let get = |name: &'static str| match name {
            "ALIBABA_CLOUD_STS_ENDPOINT" => sts.clone(),
            "ALIBABA_CLOUD_STS_REGION" => region.clone(),
            "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED" => Some(vpc.clone()),
            "ALIBABA_CLOUD_ACCESS_KEY_ID" => Some(id.clone()),
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET" | "ALIBABA_CLOUD_SECURITY_TOKEN" => Some(PLANTED.to_owned()),
            _ => None,
        };
        let allowed = allowed();
        match environment::read(get, &allowed) {
            Ok(read) => {
                let shown = format!("{read:?}");
                prop_assert!(!reveals(&shown), "{}", shown);
                let is_paired = |sts: &Origin| allowed.iter().any(|pair| pair.sts == *sts);
                prop_assert!(read.sts.is_none_or(|sts| STS.is_match(sts.authority()) || is_paired(&sts)));
            }
            Err(why) => prop_assert!(!reveals(&why), "{}", why),
        }
    }

    #[test]
    fn a_bundle_has_a_certificate_or_is_refused(bytes in damaged(Just(format!("{0}{0}", *PEM)).boxed())) {
        let text = String::from_utf8_lossy(&bytes);
        let origin = "https://kms.internal:8443".parse().unwrap();
        if CLIENT.endpoint(origin, Some(&text)).is_ok() {
            prop_assert!(text.contains("BEGIN CERTIFICATE"));
        }
    }
}

#[test]
fn a_bundle_of_two_is_taken() {
    let origin = "https://kms.internal:8443".parse().unwrap();
    let both = pem() + &pem();
    assert!(CLIENT.endpoint(origin, Some(&both)).is_ok());
}

#[test]
fn some_of_the_endpoints_are_accepted() {
    let is_accepted = |text: &String| resolve("cn-hangzhou", false, Some(text), &allowed()).is_ok();
    let share = super::share(&endpoint(), is_accepted);
    assert!((50..900).contains(&share), "{share} of 1000");
}
