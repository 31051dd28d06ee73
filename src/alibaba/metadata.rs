//! The metadata service of an ECS instance, which gives the credentials of the instance's role.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretSlice};

use super::assume_role::{Session, read_instance_session};
use super::client::{self, Attempt, Client, date, outcome, read_capped, transport_error};
use super::endpoint::{MetadataEndpoint, is_instance_role};
use super::{Error, Refusal};

/// The service is on the same machine.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(2);
/// A token serves for the calls that follow at once.
const TOKEN_SECONDS: &str = "60";
const TTL_HEADER: &str = "x-aliyun-ecs-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aliyun-ecs-metadata-token";
const ROLES: &str = "latest/meta-data/ram/security-credentials/";

/// The metadata service.
pub struct Metadata {
    client: Arc<Client>,
    http: reqwest::Client,
    endpoint: MetadataEndpoint,
}

/// An answer, not yet judged.
struct Told {
    status: u16,
    body: SecretSlice<u8>,
    given: Timestamp,
}

impl Metadata {
    /// The service at `endpoint`; no proxy stands between.
    ///
    /// # Errors
    /// When the TLS back end can't be set up.
    pub fn new(client: Arc<Client>, endpoint: MetadataEndpoint) -> Result<Self, reqwest::Error> {
        let http = client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(DEADLINE)
            .build()?;
        Ok(Self {
            client,
            http,
            endpoint,
        })
    }

    /// The credentials of the instance's role; without a name, of the one that the service names.
    ///
    /// # Errors
    /// The refusal, or what else came instead of an answer.
    pub async fn session(&self, role: Option<&str>) -> Result<Session, Error> {
        let token = self.token().await?;
        let role = match role {
            Some(role) => role.to_owned(),
            None => self.role(token.as_ref()).await?,
        };
        if !is_instance_role(&role) {
            return Err(Error::Malformed("no name of a role".into()));
        }
        let path = format!("{ROLES}{role}");
        let told = self
            .get("MetadataCredentials", &path, token.as_ref())
            .await?;
        read_instance_session(told.body.expose_secret(), told.given)
    }

    /// A token, which the second version of the service wants. Only a service that has no tokens is asked without one:
    /// after any other failure that would be a way around the token.
    async fn token(&self) -> Result<Option<HeaderValue>, Error> {
        let request = self
            .http
            .put(self.url("latest/api/token"))
            .header(TTL_HEADER, TOKEN_SECONDS);
        let told = self.ask("MetadataToken", request).await?;
        match told.status {
            200 => {
                let mut token = HeaderValue::from_bytes(told.body.expose_secret().trim_ascii())
                    .map_err(|_| Error::Malformed("the token cannot be a header".into()))?;
                token.set_sensitive(true);
                Ok(Some(token))
            }
            404 | 405 => Ok(None),
            status => Err(refused(status)),
        }
    }

    async fn role(&self, token: Option<&HeaderValue>) -> Result<String, Error> {
        let told = self.get("MetadataRole", ROLES, token).await?;
        let role = std::str::from_utf8(told.body.expose_secret()).unwrap_or_default();
        Ok(role.trim().to_owned())
    }

    async fn get(
        &self,
        action: &'static str,
        path: &str,
        token: Option<&HeaderValue>,
    ) -> Result<Told, Error> {
        let mut request = self.http.get(self.url(path));
        if let Some(token) = token {
            request = request.header(TOKEN_HEADER, token);
        }
        let told = self.ask(action, request).await?;
        if told.status == 200 {
            Ok(told)
        } else {
            Err(refused(told.status))
        }
    }

    async fn ask(
        &self,
        action: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<Told, Error> {
        let started = Instant::now();
        let result = self.send(request).await;
        self.client.observe(&Attempt {
            action,
            outcome: match &result {
                Ok(told) if told.status != 200 => "Other",
                result => outcome(result.as_ref().err()),
            },
            elapsed: started.elapsed(),
            clock_offset: None,
        });
        result
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Told, Error> {
        let mut response = request.send().await.map_err(transport_error)?;
        Ok(Told {
            status: response.status().as_u16(),
            given: date(&response).unwrap_or_else(|| self.client.now()),
            body: read_capped(&mut response).await?.into(),
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }
}

/// Its refusals are web pages.
fn refused(status: u16) -> Error {
    Error::Refused(Box::new(Refusal::of_code(status, None)))
}
