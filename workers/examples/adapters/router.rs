//! The port `workers::traffic::Router`: nginx, by a file of its configuration for each deployment.
//!
//! Include `FOLDER/*.conf` in nginx' `http` block. Which routes may replace which is decided by `routes::admit`, as for every
//! router. An entry is what nginx was seen to load: it is written after the reload, so that a reload that failed is not
//! taken for one that worked. nginx counts no requests here; judge with a source of measurements instead.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemas::{DeploymentId, EffectId, StackId, StreamVersion, Weight, Weights};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;
use workers::durable;
use workers::traffic::routes::{self, Admission, Refusal};
use workers::traffic::{
    ApplyError, Entry, HeldRoutes, Measures, Node, Router, RouterTrouble, Routes, StackNodes, Timeouts,
};

/// How long a call may take: the port asks that each ends within a second.
const CALL_MAX: Duration = Duration::from_millis(900);

struct Nginx {
    folder: PathBuf,
    /// The command that makes nginx read its configuration again, such as `nginx -s reload`.
    reload: Vec<String>,
    /// One call at a time: an older one must not write after a newer one.
    turn: Mutex<()>,
}

impl Nginx {
    fn path(&self, deployment: &DeploymentId, extension: &str) -> PathBuf {
        // `@` stands in no name, so that no two deployments share a file.
        let name = format!("{}@{}", deployment.environment, deployment.service);
        self.folder.join(format!("{name}.{extension}"))
    }

    fn read(&self, deployment: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        match fs::read(self.path(deployment, "json")) {
            Ok(json) => serde_json::from_slice(&json).map(Some).map_err(unreachable),
            Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(unreachable(cause)),
        }
    }

    /// Has nginx load `configuration` and remembers `entry` once it has.
    async fn load(&self, id: &DeploymentId, configuration: &str, entry: &Entry) -> Result<(), ApplyError> {
        durable::replace(&self.path(id, "conf"), configuration.as_bytes()).map_err(unreachable)?;
        let (program, args) = self.reload.split_first().expect("a command has a program");
        let status = Command::new(program).args(args).kill_on_drop(true).status().await.map_err(unreachable)?;
        if !status.success() {
            return Err(unreachable(format!("`{}` failed with {status}", self.reload.join(" "))));
        }
        let json = serde_json::to_vec(entry).expect("an entry is plain JSON");
        durable::replace(&self.path(id, "json"), &json).map_err(unreachable)
    }

    async fn admit_and_load(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError> {
        let _turn = self.turn.lock().await;
        let Some(listening) = routes.listen else {
            return Err(ApplyError::Refused(
                "nginx chooses no port; write the deployment's address under `listen` in SERVICE.toml".to_owned(),
            ));
        };
        let entry = self.read(&routes.deployment)?;
        let held = HeldRoutes { routes: routes.clone(), listening };
        if routes::admit(entry.as_ref(), routes).map_err(refused)? == Admission::Apply {
            let configuration = configuration(routes, listening);
            self.load(&routes.deployment, &configuration, &Entry::Routed(held.clone())).await?;
        }
        Ok(held)
    }

    async fn admit_and_remove(&self, id: &DeploymentId, generation: StreamVersion) -> Result<(), ApplyError> {
        let _turn = self.turn.lock().await;
        let entry = self.read(id)?;
        if routes::admit_removal(entry.as_ref(), id, generation).map_err(refused)? == Admission::Apply {
            self.load(id, "# retired\n", &Entry::Retired { generation }).await?;
        }
        Ok(())
    }
}

fn refused(refusal: Refusal) -> ApplyError {
    match refusal {
        Refusal::Superseded { held, .. } => ApplyError::Superseded { held },
        other => ApplyError::Refused(other.to_string()),
    }
}

/// It is not known what nginx serves now: the caller reads back and tries again.
fn unreachable(cause: impl ToString) -> ApplyError {
    let hint = "see nginx' error log".to_owned();
    ApplyError::Unreachable(RouterTrouble { what: format!("nginx was not told: {}", cause.to_string()), hint })
}

/// Returns the configuration: an upstream for each stack, and a draw among them for each request.
fn configuration(routes: &Routes, listening: SocketAddr) -> String {
    let mut text = format!("# {}, generation {}\n", routes.deployment, routes.generation);
    for (stack, backends) in &routes.backends {
        let servers: String = backends.nodes.iter().map(|node| format!(" server {};", node.address)).collect();
        let _ = writeln!(text, "upstream {} {{{servers} }} # {}", upstream(*stack), backends.version);
    }
    let drawn = format!("$drawn_{}", listening.to_string().replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let _ = writeln!(text, "split_clients $request_id {drawn} {{");
    for (place, (stack, weight)) in routes.weights.iter().enumerate() {
        // `*` takes the rest, so that rounding leaves no request without a stack.
        let is_last = place + 1 == routes.weights.len();
        let share = if is_last { "*".to_owned() } else { percent(weight) };
        let _ = writeln!(text, "    {share} {};", upstream(stack));
    }
    let Timeouts { connect_ms, response_ms, .. } = routes.timeouts;
    let _ = write!(
        text,
        "}}\nserver {{\n    listen {listening};\n    location / {{\n        proxy_pass http://{drawn};\n        \
         proxy_connect_timeout {connect_ms}ms;\n        proxy_read_timeout {response_ms}ms;\n    }}\n}}\n"
    );
    text
}

fn upstream(stack: StackId) -> String {
    format!("stack_{}", stack.0.simple())
}

fn percent(weight: Weight) -> String {
    let points = weight.basis_points();
    format!("{}.{:02}%", points / 100, points % 100)
}

#[async_trait::async_trait]
impl Router for Nginx {
    async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, ApplyError> {
        timeout(CALL_MAX, self.admit_and_load(routes)).await.map_err(unreachable)?
    }

    async fn remove(&self, deployment: &DeploymentId, generation: StreamVersion) -> Result<(), ApplyError> {
        timeout(CALL_MAX, self.admit_and_remove(deployment, generation)).await.map_err(unreachable)?
    }

    async fn entry(&self, deployment: &DeploymentId) -> Result<Option<Entry>, ApplyError> {
        self.read(deployment)
    }

    async fn measures(&self, _: &DeploymentId) -> Result<Option<Measures>, ApplyError> {
        Ok(None)
    }
}

fn stack(n: u128) -> StackId {
    StackId(Uuid::from_u128(n))
}

/// A stack of one node, which listens on `port`.
fn backends(n: u128, version: &str, port: u16) -> (StackId, StackNodes) {
    let node = Node { effect: EffectId(Uuid::from_u128(n)), address: SocketAddr::from(([127, 0, 0, 1], port)) };
    (stack(n), StackNodes { version: version.parse().expect("a stack's name"), nodes: vec![node] })
}

/// Routes 1 % to a canary, tries routes of an older generation, fails a reload, and takes the deployment down.
pub(crate) async fn run() -> crate::Ran {
    let folder = tempfile::tempdir()?;
    // Where there is a real nginx: `nginx -s reload`.
    let mut nginx = Nginx { folder: folder.path().to_owned(), reload: vec!["true".to_owned()], turn: Mutex::default() };
    let deployment: DeploymentId = "production/api".parse()?;
    let mut asked = Routes {
        deployment: deployment.clone(),
        generation: StreamVersion(7),
        listen: Some("127.0.0.1:8080".parse()?),
        weights: Weights::split(stack(1), stack(2), Weight::from_percent(1)),
        backends: [backends(1, "1.0.0", 4_001), backends(2, "1.1.0", 4_002)].into(),
        timeouts: Timeouts::default(),
        nodes_only: false,
    };
    let held = nginx.apply(&asked).await?;
    let configuration = fs::read_to_string(nginx.path(&deployment, "conf"))?;
    println!("{configuration}");
    assert!(configuration.contains("    99.00% stack_00000000000000000000000000000001;\n    * stack_"));
    assert_eq!(nginx.entry(&deployment).await?, Some(Entry::Routed(held.clone())), "it is read back");
    assert_eq!(nginx.apply(&asked).await?, held, "the same routes again change nothing");

    asked.generation = StreamVersion(6);
    let older = nginx.apply(&asked).await.expect_err("an older generation never undoes a newer one");
    println!("{older}");
    assert_eq!(older, ApplyError::Superseded { held: StreamVersion(7) });

    asked.generation = StreamVersion(8);
    nginx.reload = vec!["false".to_owned()];
    let failed = nginx.apply(&asked).await.expect_err("the reload fails");
    println!("{failed}");
    assert_eq!(nginx.entry(&deployment).await?, Some(Entry::Routed(held)), "what was not loaded is not held");

    nginx.reload = vec!["true".to_owned()];
    nginx.remove(&deployment, StreamVersion(9)).await?;
    assert_eq!(nginx.entry(&deployment).await?, Some(Entry::Retired { generation: StreamVersion(9) }));
    assert!(!fs::read_to_string(nginx.path(&deployment, "conf"))?.contains("server"));
    Ok(())
}
