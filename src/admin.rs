//! /healthz, /readyz and /metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::health::Pulses;
use crate::metrics::Metrics;

/// What the endpoints tell of.
#[derive(Clone)]
pub struct Admin {
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// Whether everything goes on.
    pub pulses: Pulses,
    /// The caches are filled, and this replica takes part in the work.
    pub ready: Arc<AtomicBool>,
    /// The operator was asked to stop.
    pub stopping: watch::Receiver<bool>,
}

/// Serves for ever.
///
/// # Errors
/// The listener broke.
pub async fn serve(listener: TcpListener, admin: Admin) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin);
    axum::serve(listener, router).await
}

/// Fails when the operator hangs, and only then: a restart mends neither the API server nor KMS.
async fn healthz(State(admin): State<Admin>) -> (StatusCode, String) {
    let now = tokio::time::Instant::now().into_std();
    match admin.pulses.stuck(now) {
        None => (StatusCode::OK, "ok".to_owned()),
        Some(stuck) => {
            tracing::error!("{stuck}");
            (StatusCode::SERVICE_UNAVAILABLE, stuck)
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if *admin.stopping.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if admin.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the caches are not filled, or the Lease is not held",
        )
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], admin.metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::BOUND;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn the_endpoints_say_what_is_wrong() {
        let (stop, stopping) = watch::channel(false);
        let admin = Admin {
            metrics: Arc::default(),
            pulses: Pulses::default(),
            ready: Arc::default(),
            stopping,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, admin.clone()));
        let get = async |path: &str| {
            let answer = reqwest::get(format!("http://{address}/{path}"))
                .await
                .unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let (ok, not_filled) = (
            (200, "ok".to_owned()),
            "the caches are not filled, or the Lease is not held",
        );
        assert_eq!(get("readyz").await, (503, not_filled.into()));
        admin.ready.store(true, Ordering::Relaxed);
        assert_eq!(get("readyz").await, ok);
        stop.send_replace(true);
        assert_eq!(get("readyz").await, (503, "stopping".into()));

        assert_eq!(get("healthz").await, ok);
        let long_ago = Instant::now().checked_sub(BOUND + Duration::from_secs(10));
        let heart = admin
            .pulses
            .begin("the loop".into(), BOUND, long_ago.unwrap());
        let (status, stuck) = get("healthz").await;
        assert_eq!(status, 503);
        assert!(stuck.starts_with("the loop has stood still"), "{stuck}");
        heart.beat(Instant::now());
        assert_eq!(get("healthz").await, ok);
        serving.abort();
    }
}
