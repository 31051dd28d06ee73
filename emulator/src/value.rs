//! What KMS makes up as the value of a secret that it rotates itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::clock::spell;

/// The `SecretType` of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Never rotated by KMS.
    Generic,
    /// A database account of `ApsaraDB` RDS.
    Rds,
    /// A Redis or Tair account.
    Redis,
    /// A `PolarDB` account.
    PolarDb,
    /// An access key of a RAM user.
    RamCredentials,
    /// The password of an ECS instance.
    EcsPassword,
    /// The key pair of an ECS instance.
    EcsKeyPair,
    /// A type that does not exist yet: its `SecretType`, shaped like a database account.
    Other(String),
}

impl Kind {
    /// As the wire spells it.
    #[must_use]
    pub fn wire(&self) -> &str {
        match self {
            Self::Generic => "Generic",
            Self::Rds => "Rds",
            Self::Redis => "Redis",
            Self::PolarDb => "PolarDB",
            Self::RamCredentials => "RAMCredentials",
            Self::EcsPassword | Self::EcsKeyPair => "ECS",
            Self::Other(name) => name,
        }
    }
}

/// How many accounts a rotation alternates between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accounts {
    /// One: its password changes, the old one is dead at once.
    #[default]
    Single,
    /// Two: the account name changes from read to read, the old one works until the next rotation.
    Dual,
}

/// Makes the value number `turn` of a managed secret.
pub(crate) fn generate(
    kind: &Kind,
    accounts: Accounts,
    account: &str,
    turn: u64,
    now: Timestamp,
) -> String {
    match kind {
        Kind::RamCredentials => object(&[
            ("AccessKeyId", format!("LTAI{}", &password()[..20])),
            ("AccessKeySecret", password()),
            ("GenerateTimestamp", spell(now)),
        ]),
        Kind::EcsPassword => object(&[("UserName", account.to_owned()), ("Password", password())]),
        Kind::EcsKeyPair => object(&[
            ("UserName", account.to_owned()),
            (
                "PublicKey",
                format!("ssh-rsa {} imported-openssh-key", blob()),
            ),
            (
                "PrivateKey",
                format!(
                    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n",
                    blob()
                ),
            ),
        ]),
        _ => object(&[
            ("AccountName", account_of(accounts, account, turn)),
            ("AccountPassword", password()),
        ]),
    }
}

fn account_of(accounts: Accounts, account: &str, turn: u64) -> String {
    if accounts == Accounts::Dual && turn % 2 == 1 {
        format!("{account}_clone")
    } else {
        account.to_owned()
    }
}

/// The `ExtendedConfig` of a managed secret: a string that holds JSON.
pub(crate) fn extended_config(kind: &Kind, accounts: Accounts, account: &str) -> String {
    let users = match accounts {
        Accounts::Single => "SingleUser",
        Accounts::Dual => "DoubleUsers",
    };
    let clone = format!("{account}_clone");
    let fields: &[(&str, &str)] = match kind {
        Kind::RamCredentials => &[("SecretSubType", "RamUserAccessKey"), ("UserName", account)],
        Kind::EcsPassword => &[
            ("SecretSubType", "Password"),
            ("RegionId", "cn-hangzhou"),
            ("InstanceId", "i-emulated"),
        ],
        Kind::EcsKeyPair => &[
            ("SecretSubType", "SSHKey"),
            ("RegionId", "cn-hangzhou"),
            ("InstanceId", "i-emulated"),
        ],
        Kind::Redis => &[
            ("SecretSubType", users),
            ("InstanceId", "r-emulated"),
            ("AccountName", account),
            ("CloneAccountName", &clone),
        ],
        Kind::PolarDb => &[
            ("SecretSubType", users),
            ("DBClusterId", "pc-emulated"),
            ("AccountName", account),
            ("CloneAccountName", &clone),
        ],
        _ => &[("SecretSubType", users), ("DBInstanceId", "rm-emulated")],
    };
    let mut config: Map<String, Json> = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Json::from(*value)))
        .collect();
    config.insert("CustomData".to_owned(), Map::new().into());
    Json::from(config).to_string()
}

/// Keeps the order of the fields, as the documents show it.
fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}:{}", Json::from(*name), Json::from(value.as_str())))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn password() -> String {
    Uuid::new_v4().simple().to_string()
}

fn blob() -> String {
    let bytes: Vec<u8> = (0..6).flat_map(|_| Uuid::new_v4().into_bytes()).collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(value: &str, name: &str) -> String {
        let json: Json = serde_json::from_str(value).unwrap();
        json[name].as_str().unwrap().to_owned()
    }

    #[test]
    fn two_accounts_take_turns_and_one_account_keeps_its_name() {
        let make =
            |accounts, turn| generate(&Kind::Rds, accounts, "app", turn, Timestamp::UNIX_EPOCH);
        assert_eq!(field(&make(Accounts::Dual, 0), "AccountName"), "app");
        assert_eq!(field(&make(Accounts::Dual, 1), "AccountName"), "app_clone");
        assert_eq!(field(&make(Accounts::Dual, 2), "AccountName"), "app");
        assert_eq!(field(&make(Accounts::Single, 1), "AccountName"), "app");
        assert_ne!(make(Accounts::Single, 0), make(Accounts::Single, 0));
    }

    #[test]
    fn every_kind_has_its_fields() {
        let make = |kind: &Kind| generate(kind, Accounts::Single, "u", 0, Timestamp::UNIX_EPOCH);
        assert!(field(&make(&Kind::RamCredentials), "GenerateTimestamp").starts_with("1970-"));
        assert_eq!(field(&make(&Kind::EcsPassword), "UserName"), "u");
        assert!(field(&make(&Kind::EcsKeyPair), "PrivateKey").starts_with("-----BEGIN"));
        let config = extended_config(&Kind::PolarDb, Accounts::Dual, "u");
        assert_eq!(field(&config, "CloneAccountName"), "u_clone");
    }
}
