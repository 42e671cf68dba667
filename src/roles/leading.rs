//! What must run once in a cluster, however many servers it has: controllers and scheduler.
//!
//! A server with a store of its own is the only one, and runs them at once. Servers that share a store elect the one that
//! does, for the controllers and for the scheduler.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use apiserver::{ApiServer, UserInfo};
use client::election::{Election, Terms};
use client::informer::Informers;
use rt::Tasks;

const CONTROLLERS: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";

/// What tells how the work goes.
type Told = Arc<dyn Fn() -> String + Send + Sync>;

/// Controllers and scheduler, here or at another server.
pub struct Leading {
    /// Why this process must end.
    overstayed: watch::Sender<Option<String>>,
}

fn client(server: &ApiServer, component: &str) -> kube::Client {
    server.client(UserInfo::new(format!("system:{component}"), &["system:authenticated"]))
}

fn run_scheduler(server: &ApiServer, informers: &Informers, clock: &Arc<dyn rt::Clock>, tasks: &Tasks) {
    scheduler::run(client(server, SCHEDULER), informers, Arc::clone(clock), tasks);
}

impl Leading {
    /// Runs all of it until `tasks` stop.
    pub fn alone(server: &ApiServer, settings: controllers::Settings, tasks: &Tasks) -> Self {
        let controllers = client(server, CONTROLLERS);
        let (informers, clock) = (Informers::new(controllers.clone(), tasks), settings.clock.clone());
        let counted = controllers::run(controllers, &informers, settings, tasks);
        run_scheduler(server, &informers, &clock, tasks);
        server.metrics().add(move || counted.render());
        server.metrics().add(move || informers.render());
        Self { overstayed: watch::Sender::new(None) }
    }

    /// Runs each part while this server is the elected one; `node` is what the server is called. One node has one server, as
    /// it has one port for the API, so a server that starts again takes over from itself.
    pub fn elected(
        server: &ApiServer,
        settings: controllers::Settings,
        node: &str,
        terms: Terms,
        tasks: &Tasks,
    ) -> Self {
        let this = Self { overstayed: watch::Sender::new(None) };
        let election =
            |lease| Election { client: client(server, lease), lease, identity: node.to_owned(), terms };
        let clock = settings.clock.clone();
        let manager = client(server, CONTROLLERS);
        let told: Arc<Mutex<Option<Told>>> = Arc::default();
        let tells = Arc::clone(&told);
        server.metrics().add(move || {
            let told = tells.lock().unwrap_or_else(PoisonError::into_inner).clone();
            told.map_or_else(String::new, |told| told())
        });
        this.stand(election(CONTROLLERS), tasks, move |term| {
            let informers = Informers::new(manager.clone(), term);
            let counted = controllers::run(manager.clone(), &informers, settings.clone(), term);
            let tell: Told = Arc::new(move || counted.render() + &informers.render());
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(tell);
            // What was seen in a term is of no use after it.
            let (told, stop) = (Arc::clone(&told), term.stop());
            term.spawn(async move {
                stop.cancelled().await;
                *told.lock().unwrap_or_else(PoisonError::into_inner) = None;
            });
        });
        let scheduler = client(server, SCHEDULER);
        this.stand(election(SCHEDULER), tasks, move |term| {
            scheduler::run(scheduler.clone(), &Informers::new(scheduler.clone(), term), clock.clone(), term);
        });
        this
    }

    fn stand(&self, election: Election, tasks: &Tasks, lead: impl Fn(&Tasks) + Send + Sync + 'static) {
        let (lease, overstayed) = (election.lease, self.overstayed.clone());
        let standing = election.run(tasks.clone(), lead);
        tasks.spawn(async move {
            if let Err(error) = standing.await {
                overstayed.send_replace(Some(format!("{lease}: the lease is lost, and {error}")));
            }
        });
    }

    /// Resolves, with the reason, when something runs here that another server may run by now.
    pub async fn overstayed(&self) -> anyhow::Error {
        let mut overstayed = self.overstayed.subscribe();
        let reason = overstayed.wait_for(Option::is_some).await;
        let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
        anyhow::anyhow!(reason)
    }
}
