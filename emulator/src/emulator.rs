//! The handle: starting, stopping, addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use crate::clock::lock;
use crate::controls::Controls;
use crate::serve::serve;
use crate::tls;

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where to listen and who the emulated account is.
#[derive(Clone, Debug)]
pub struct Options {
    /// For HTTP.
    pub listen: SocketAddr,
    /// For HTTPS.
    pub https_listen: SocketAddr,
    /// Names and addresses in the certificate besides localhost.
    pub tls_names: Vec<String>,
    /// Certificates and key, as PEM, in place of those that are made anew at each start.
    pub tls_pair: Option<(String, String)>,
    /// The account that owns keys and secrets.
    pub account: String,
    /// The region of the secrets.
    pub region: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: LOOPBACK,
            https_listen: LOOPBACK,
            tls_names: Vec::new(),
            tls_pair: None,
            account: "1234567890123456".to_owned(),
            region: "cn-hangzhou".to_owned(),
        }
    }
}

/// A running emulator. Clones are handles of the same one; it stops when the last is dropped.
#[derive(Clone)]
pub struct Emulator {
    controls: Arc<Controls>,
    life: Arc<Life>,
}

struct Life {
    plain: SocketAddr,
    secure: SocketAddr,
    ca_pem: String,
    stop: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Emulator {
    /// Starts an emulator; it answers when this returns.
    #[expect(
        clippy::unused_async,
        reason = "tests await it like any other server's start"
    )]
    pub async fn start(options: Options) -> io::Result<Self> {
        Self::start_blocking(options)
    }

    /// The same outside of a runtime.
    ///
    /// The emulator has a thread and a runtime of its own: a test may pause its clock, block its thread or end its
    /// runtime without stopping the service.
    #[expect(clippy::needless_pass_by_value, reason = "so that it reads like start")]
    pub fn start_blocking(options: Options) -> io::Result<Self> {
        let plain = listen(options.listen)?;
        let secure = listen(options.https_listen)?;
        let tls = match &options.tls_pair {
            Some((certificates, key)) => tls::given(certificates, key)?,
            None => tls::issue(names(&options))?,
        };
        let controls = Arc::new(Controls::new(&options.region, &options.account));
        let (stop, stopped) = oneshot::channel();
        let mut life = Life {
            plain: plain.local_addr()?,
            secure: secure.local_addr()?,
            ca_pem: tls.ca_pem,
            stop: Mutex::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let served = serve(
            Arc::clone(&controls),
            plain,
            (secure, tls.acceptor),
            stopped,
        );
        let thread = thread::Builder::new()
            .name("kms-emulator".to_owned())
            .spawn(move || {
                // It fails only if the listeners cannot be watched, and clients see that.
                let _ = runtime.block_on(served);
            })?;
        life.stop = Mutex::new(Some((stop, thread)));
        let life = Arc::new(life);
        Ok(Self { controls, life })
    }

    /// Like `http://127.0.0.1:8080`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.life.plain)
    }

    /// Like `https://127.0.0.1:8443`.
    #[must_use]
    pub fn https_origin(&self) -> String {
        format!("https://{}", self.life.secure)
    }

    /// The address of the HTTP listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.life.plain
    }

    /// The address of the HTTPS listener.
    #[must_use]
    pub fn https_address(&self) -> SocketAddr {
        self.life.secure
    }

    /// The certificate of the authority behind the HTTPS listener.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.life.ca_pem
    }

    /// Stops listening and ends all connections, before it returns.
    pub fn stop(&self) {
        let running = lock(&self.life.stop).take();
        if let Some((stop, thread)) = running {
            drop(stop);
            // A panic in there has been printed by the thread.
            let _ = thread.join();
        }
    }
}

impl Deref for Emulator {
    type Target = Controls;

    fn deref(&self) -> &Controls {
        &self.controls
    }
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn names(options: &Options) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    names.extend(options.tls_names.clone());
    names
}
