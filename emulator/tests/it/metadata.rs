//! The role of the instance.

use std::time::Duration;

use kms_emulator::{Effect, Emulator, Fault, MetadataMode};

use crate::client::{Answer, Session, ask, get, plain, start};

const ROLES: &str = "GET /latest/meta-data/ram/security-credentials/";
const ROLE: &str = "KubernetesWorkerRole-abc";

fn instance(mode: MetadataMode) -> Emulator {
    let kms = start();
    kms.put_generic("s", "x");
    kms.set_instance_role(Some(ROLE));
    kms.set_metadata_mode(mode);
    kms
}

fn ask_token(kms: &Emulator, ttl: &str) -> Answer {
    let header = [("X-aliyun-ecs-metadata-token-ttl-seconds", ttl)];
    plain(kms, "PUT /latest/api/token", &header, "")
}

fn look(kms: &Emulator, path: &str, token: Option<&str>) -> Answer {
    let header = token.map(|token| ("X-aliyun-ecs-metadata-token", token));
    plain(kms, &format!("{ROLES}{path}"), header.as_slice(), "")
}

#[test]
fn an_instance_learns_its_role_and_reads_with_it() {
    let kms = instance(MetadataMode::Both);
    let token = ask_token(&kms, "21600").text();
    for token in [Some(token.as_str()), None] {
        assert_eq!(look(&kms, "", token).text(), ROLE);
        let answer = look(&kms, ROLE, token).json();
        assert_eq!(answer["Code"], "Success");
        assert!(answer["LastUpdated"].is_string());
        let session = Session::in_answer(&answer);
        assert_eq!(session.sign(get(&kms, "s")).send(&kms).data(), "x");
        let me = session.sign(ask(&kms, "GetCallerIdentity", &[])).send(&kms);
        let arn = format!("acs:ram::1234567890123456:assumed-role/{ROLE}/i-emulated");
        assert_eq!(me.json()["Arn"], arn);
    }
    assert_eq!(look(&kms, "other", None).status, 404);
    let region = plain(&kms, "GET /latest/meta-data/region-id", &[], "");
    assert_eq!(region.text(), "cn-hangzhou");
    assert_eq!(kms.count("MetadataToken"), 1);
    assert_eq!(kms.count("MetadataCredentials"), 3);
    kms.set_instance_role(None);
    assert_eq!(look(&kms, "", None).status, 404);
}

#[test]
fn credentials_are_the_same_for_a_while_and_expire() {
    let kms = instance(MetadataMode::Both);
    kms.set_instance_lifetime(Duration::from_secs(3600));
    let credentials = || Session::in_answer(&look(&kms, ROLE, None).json());
    let first = credentials();
    kms.advance(Duration::from_secs(2990));
    assert_eq!(credentials().id, first.id);
    kms.advance(Duration::from_secs(20));
    let second = credentials();
    assert_ne!(second.id, first.id);
    assert_eq!(first.sign(get(&kms, "s")).send(&kms).status, 200);
    kms.advance(Duration::from_secs(600));
    let late = first.sign(get(&kms, "s")).send(&kms);
    assert_eq!(late.code(), "InvalidSecurityToken.Expired");
    assert_eq!(second.sign(get(&kms, "s")).send(&kms).status, 200);
}

#[test]
fn tokens_need_a_lifetime_and_end_with_it() {
    let kms = instance(MetadataMode::V2Only);
    assert_eq!(plain(&kms, "PUT /latest/api/token", &[], "").status, 400);
    for odd in ["0", "21601", "soon"] {
        assert_eq!(ask_token(&kms, odd).status, 400, "{odd}");
    }
    assert_eq!(plain(&kms, "GET /latest/api/token", &[], "").status, 405);
    assert_eq!(look(&kms, "", None).status, 403);
    assert_eq!(look(&kms, "", Some("made up")).status, 401);
    let token = ask_token(&kms, "60").text();
    assert_eq!(look(&kms, ROLE, Some(&token)).status, 200);
    kms.advance(Duration::from_secs(61));
    assert_eq!(look(&kms, ROLE, Some(&token)).status, 401);
}

#[test]
fn a_service_can_be_old_broken_or_without_credentials() {
    for (mode, status) in [
        (MetadataMode::V1Only, 404),
        (MetadataMode::V1OnlyNotAllowed, 405),
    ] {
        let kms = instance(mode);
        assert_eq!(ask_token(&kms, "60").status, status);
        assert_eq!(look(&kms, ROLE, None).json()["Code"], "Success");
    }
    let kms = instance(MetadataMode::Broken);
    assert_eq!(
        (ask_token(&kms, "60").status, look(&kms, ROLE, None).status),
        (500, 500)
    );
    kms.set_metadata_mode(MetadataMode::NotSuccess);
    let token = ask_token(&kms, "60").text();
    let answer = look(&kms, ROLE, Some(&token));
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["Code"], "Failed");
    assert!(answer.json()["AccessKeyId"].is_null());
}

#[test]
fn only_faults_that_name_its_actions_hit_it() {
    let kms = instance(MetadataMode::Both);
    kms.fault(Fault::code("InternalFailure"));
    assert_eq!(ask_token(&kms, "60").status, 200);
    kms.fault(
        Fault::new(Effect::BadGateway)
            .on_action("MetadataToken")
            .times(1),
    );
    assert_eq!(
        (ask_token(&kms, "60").status, ask_token(&kms, "60").status),
        (502, 200)
    );
}
