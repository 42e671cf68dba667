//! The Secrets that Ingresses and Gateways name: one watch each, as kubelets have it, for a node may not list them all.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;

use super::proxy::Users;
use client::typed::SecretKey;
use pki::certified;
use rt::{Stop, Tasks};

/// A Secret, and what was made of it.
#[derive(Debug, Default)]
pub struct Known {
    secret: Secret,
    certificate: OnceLock<Option<Arc<CertifiedKey>>>,
    file: OnceLock<Arc<Users>>,
    map: OnceLock<Arc<Users>>,
}

impl Known {
    /// What a Secret holds.
    pub fn of(secret: Secret) -> Arc<Self> {
        Arc::new(Self { secret, ..Self::default() })
    }

    fn part(&self, name: &str) -> Option<&[u8]> {
        self.secret.data.as_ref().and_then(|data| data.get(name)).map(|part| part.0.as_slice())
    }

    fn certificate(&self, key: &SecretKey) -> Option<Arc<CertifiedKey>> {
        let read = || {
            let part = |name: &str| self.part(name).unwrap_or_default();
            certified(part("tls.crt"), part("tls.key"))
                .inspect_err(|error| tracing::warn!(secret = %key, %error, "a certificate"))
                .ok()
        };
        self.certificate.get_or_init(read).clone()
    }

    /// People by a file under `auth`, or each by a key of its own.
    fn users(&self, key: &SecretKey, map: bool) -> Arc<Users> {
        let read = || {
            let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
            let lines = || {
                let all = self.secret.data.iter().flatten();
                all.map(|(name, hash)| format!("{name}:{}\n", text(&hash.0))).collect()
            };
            let file = if map { lines() } else { self.part("auth").map(text).unwrap_or_default() };
            let (users, unknown) = Users::read(&file);
            if !unknown.is_empty() {
                tracing::warn!(secret = %key, people = unknown.join(", "), "passwords hashed in a way that is not known");
            }
            Arc::new(users)
        };
        if map { self.map.get_or_init(read).clone() } else { self.file.get_or_init(read).clone() }
    }
}

/// What is known while routes are made; who asks for a Secret will be told of it.
#[derive(Debug, Default)]
pub struct Look {
    known: BTreeMap<SecretKey, Arc<Known>>,
    asked: BTreeSet<SecretKey>,
}

impl Look {
    /// Exactly these are there.
    pub fn at(known: BTreeMap<SecretKey, Arc<Known>>) -> Self {
        Self { known, asked: BTreeSet::new() }
    }

    fn ask(&mut self, key: &SecretKey) -> Option<Arc<Known>> {
        self.asked.insert(key.clone());
        self.known.get(key).cloned()
    }

    /// The certificate in a Secret; one that cannot be used is said in the log.
    pub fn certificate(&mut self, key: &SecretKey) -> Option<Arc<CertifiedKey>> {
        self.ask(key)?.certificate(key)
    }

    /// The people in a Secret.
    pub fn users(&mut self, key: &SecretKey, map: bool) -> Option<Arc<Users>> {
        Some(self.ask(key)?.users(key, map))
    }
}

/// Each with what ends its watch.
type Followed = BTreeMap<SecretKey, (Stop, Option<Arc<Known>>)>;

/// The watches, and what the last word on each Secret was.
#[derive(Default)]
pub struct Secrets {
    followed: Mutex<Followed>,
    changed: Arc<Notify>,
}

impl Secrets {
    /// None yet; `changed` is told of every change.
    pub fn new(changed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { changed, ..Self::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now.
    pub fn look(&self) -> Look {
        let known = |(key, (_, known)): (&SecretKey, &(Stop, Option<Arc<Known>>))| {
            Some((key.clone(), known.clone()?))
        };
        Look::at(self.lock().iter().filter_map(known).collect())
    }

    /// Follows exactly what was asked for.
    pub fn follow(self: &Arc<Self>, look: &Look, client: &Client, tasks: &Tasks) {
        let mut followed = self.lock();
        followed.retain(|key, (stop, _)| {
            let stays = look.asked.contains(key);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for key in &look.asked {
            followed.entry(key.clone()).or_insert_with_key(|key| {
                let (stop, key) = (tasks.stop().child_token(), key.clone());
                let (own, client, until) = (self.clone(), client.clone(), stop.clone());
                tasks.spawn(async move { until.run_until_cancelled(own.watch(key, client)).await });
                (stop, None)
            });
        }
    }

    async fn watch(self: Arc<Self>, key: SecretKey, client: Client) {
        let api = Api::<Secret>::namespaced(client, &key.namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
        let mut events = pin!(watch_objects(api, config).default_backoff());
        let mut listed = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = None,
                Ok(Event::InitApply(secret)) => listed = Some(secret),
                Ok(Event::InitDone) => self.put(&key, listed.take()),
                Ok(Event::Apply(secret)) => self.put(&key, Some(secret)),
                Ok(Event::Delete(_)) => self.put(&key, None),
                Err(error) => tracing::warn!(secret = %key, %error, "a Secret of a route"),
            }
        }
    }

    fn put(&self, key: &SecretKey, secret: Option<Secret>) {
        if let Some((_, known)) = self.lock().get_mut(key) {
            *known = secret.map(Known::of);
            self.changed.notify_one();
        }
    }
}
