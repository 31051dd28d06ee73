//! An API server that refuses everything for a while: few requests meanwhile, the last good Secret, and all current
//! afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::gate::{Fate, Gate};
use crate::world::World;

const OBJECTS: usize = 12;

fn object(n: usize) -> String {
    format!("o{n}")
}

fn rotate(world: &World, value: &str) {
    for n in 0..OBJECTS {
        world.kms.put_generic(&object(n), value);
    }
}

async fn until_all(world: &World, value: &str) {
    for n in 0..OBJECTS {
        world.until_text(&object(n), "value", value).await;
    }
}

#[tokio::test]
async fn an_api_server_that_refuses_for_a_while_is_asked_ever_more_rarely() {
    let world = World::new().await;
    rotate(&world, "first");
    for n in 0..OBJECTS {
        let spec = json!({"refresh": {"interval": "1s"}});
        world.kms_secret(&object(n), &object(n), spec).await;
    }
    let (code, refused) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = {
        let (code, refused) = (Arc::clone(&code), Arc::clone(&refused));
        Gate::new(move |asked| {
            let code = code.load(Ordering::Relaxed);
            // Only writes conflict.
            if code == 0 || asked.is_of_lease() || (code == 409 && asked.method == "GET") {
                return Fate::Pass;
            }
            refused.fetch_add(1, Ordering::Relaxed);
            Fate::Refused(code)
        })
    };
    let client = world.cluster.client_behind(&gate).await;
    let flags = ["--namespace", world.namespace.as_str()];
    let _operator = world.operator_by(client, &flags, |_| ()).await;
    until_all(&world, "first").await;
    let mut last = "first".to_owned();
    for storm in [409, 429, 500] {
        let next = format!("after {storm}");
        let reads = world.kms.count("GetSecretValue");
        code.store(storm, Ordering::Relaxed);
        rotate(&world, &next);
        tokio::time::sleep(Duration::from_secs(8)).await;
        let reads = world.kms.count("GetSecretValue") - reads;
        let refused = refused.swap(0, Ordering::Relaxed);
        // An attempt after 1, 2, 4 seconds, and none in between.
        let most = 8 * OBJECTS;
        assert!(refused <= most, "{refused} refused by {storm}");
        assert!(reads <= most, "{reads} reads while refused by {storm}");
        for n in 0..OBJECTS {
            let text = world.text(&object(n), "value").await;
            assert_eq!(text.as_deref(), Some(last.as_str()), "{storm}");
        }
        code.store(0, Ordering::Relaxed);
        until_all(&world, &next).await;
        last = next;
    }
}
