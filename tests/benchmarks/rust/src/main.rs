//! The kube-rs contender: it does one piece of work when told to and says when it is done.
//!
//! It speaks with the harness over its standard input ("go", "stats", end of input to stop) and output (a JSON object a
//! line); see ../contenders/protocol.py, which is the same for the Python contenders.

mod widget;

use std::fmt::Debug;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::runtime::reflector::Store;
use kube::runtime::{predicates, reflector, watcher, WatchStreamExt};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use widget::{Condition, Widget};

/// Every contender writes under this field manager: the objects remember each name, and more of them cost more.
const MANAGER: &str = "controller";

static RECONCILES: AtomicI64 = AtomicI64::new(0);
static WRITES: AtomicI64 = AtomicI64::new(0);
static FAILURES: AtomicI64 = AtomicI64::new(0);
static OBJECTS: AtomicI64 = AtomicI64::new(0);

fn mark(name: &str) {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let line = serde_json::json!({
        "mark": name,
        "at": SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64(),
        "cpu": seconds(usage.ru_utime) + seconds(usage.ru_stime),
        "reconciles": RECONCILES.load(SeqCst),
        "writes": WRITES.load(SeqCst),
        "failures": FAILURES.load(SeqCst),
        "objects": OBJECTS.load(SeqCst),
    });
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").unwrap();
    output.flush().unwrap();
}

struct Context {
    api: Api<Widget>,
    run: String,
    count: i64,
    after: Action,
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Failure(#[from] kube::Error);

async fn reconcile(widget: Arc<Widget>, context: Arc<Context>) -> Result<Action, Failure> {
    RECONCILES.fetch_add(1, SeqCst);
    let mut status = widget.status.clone().unwrap_or_default();
    let since = status.conditions.iter().find(|found| found.r#type == "Ready" && found.status == "True");
    let since = since.map(|found| found.last_transition_time.clone());
    status.run = Some(context.run.clone());
    status.observed_generation = widget.metadata.generation;
    status.conditions = vec![Condition {
        r#type: "Ready".into(),
        status: "True".into(),
        reason: "Provisioned".into(),
        message: "1 of 1".into(),
        last_transition_time: since.unwrap_or_else(|| Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    }];
    if widget.status.as_ref() == Some(&status) {
        return Ok(context.after.clone());
    }
    let mut changed = (*widget).clone();
    changed.status = Some(status);
    let options = PostParams { field_manager: Some(MANAGER.into()), ..Default::default() };
    if let Err(error) = context.api.replace_status(&widget.name_any(), &options, &changed).await {
        FAILURES.fetch_add(1, SeqCst);
        return Err(error.into());
    }
    if WRITES.fetch_add(1, SeqCst) + 1 == context.count {
        mark("done");
    }
    Ok(context.after.clone())
}

/// Reads an object and writes nothing.
async fn look<K>(_object: Arc<K>, count: Arc<i64>) -> Result<Action, Failure> {
    if RECONCILES.fetch_add(1, SeqCst) + 1 == *count {
        mark("done");
    }
    Ok(Action::await_change())
}

/// Return a cache and what changes in it; the mark comes when it is filled.
fn cache<K>(api: Api<K>) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let filled = reader.clone();
    tokio::spawn(async move {
        filled.wait_until_ready().await.unwrap();
        OBJECTS.store(filled.len() as i64, SeqCst);
        mark("synced");
    });
    let objects = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .touched_objects();
    (reader, objects)
}

fn workers() -> ControllerConfig {
    ControllerConfig::default().concurrency(option("workers", "10").parse().unwrap())
}

async fn converge(api: Api<Widget>) {
    let requeue: f64 = option("requeue", "0").parse().unwrap();
    let context = Arc::new(Context {
        api: api.clone(),
        run: option("run", ""),
        count: option("count", "0").parse().unwrap(),
        after: if requeue > 0.0 { Action::requeue(Duration::from_secs_f64(requeue)) } else { Action::await_change() },
    });
    let (reader, objects) = cache(api);
    let changed = objects.predicate_filter(predicates::generation, Default::default());
    Controller::for_stream(changed, reader)
        .with_config(workers())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), context)
        .for_each(|_| async {})
        .await;
}

/// Fill a cache; reconcile nothing, or each object once without a write.
async fn keep<K>(api: Api<K>, reconciles: bool)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, objects) = cache(api);
    if reconciles {
        let changed = objects.predicate_filter(predicates::generation, Default::default());
        let count: i64 = option("count", "0").parse().unwrap();
        Controller::for_stream(changed, reader)
            .with_config(workers())
            .run(look, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(count))
            .for_each(|_| async {})
            .await;
    } else {
        objects.for_each(|_| async {}).await;
    }
}

/// Return the value of an option; unknown options are ignored, as each contender needs some of them only.
fn option(name: &str, default: &str) -> String {
    let start = format!("--{name}=");
    std::env::args().find_map(|given| given.strip_prefix(&start).map(String::from)).unwrap_or_else(|| default.into())
}

#[tokio::main]
async fn main() {
    let kubeconfig = Kubeconfig::read_from(option("kubeconfig", "")).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let namespace = option("namespace", "default");

    mark("ready");
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    std::thread::spawn(|| {
        for _ in std::io::stdin().lock().lines() {
            mark("stats");
        }
        std::process::exit(0);
    });

    let work = option("work", "converge");
    match (work.as_str(), option("kind", "Widget").as_str()) {
        ("converge", _) => converge(Api::namespaced(client, &namespace)).await,
        (_, "Pod") => keep::<Pod>(Api::namespaced(client, &namespace), work == "read").await,
        _ => keep::<Widget>(Api::namespaced(client, &namespace), work == "read").await,
    }
}
