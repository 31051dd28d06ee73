//! Which cluster is asked, and as whom: the flags of kubectl that a plugin needs.

use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct Access {
    /// Namespace; that of the context when left out.
    #[arg(long, short, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; its current one when left out.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Where the kubeconfig is; left out, KUBECONFIG says it, or else it is ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// User to act as, where you may, such as system:serviceaccount:shop:deployer.
    #[arg(long = "as", value_name = "USER")]
    pub as_user: Option<String>,
}

impl Access {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// There is no such kubeconfig or context.
    pub async fn connect(&self) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let mut config = match &self.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file)?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await?
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await?,
        };
        if self.as_user.is_some() {
            config.auth_info.impersonate.clone_from(&self.as_user);
        }
        Ok(Client::try_from(config)?)
    }

    /// The namespace that is meant.
    #[must_use]
    pub fn namespace(&self, client: &Client) -> String {
        let named = self.namespace.as_deref();
        named.unwrap_or(client.default_namespace()).to_owned()
    }
}
