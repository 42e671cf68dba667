//! Everything that judges requests, put together once: who (authentication), may they (authorisation), may this be
//! written (admission), the reviews, and the streams to nodes.

use std::sync::Arc;

use http::request::Parts;

use super::admission::Admission;
use super::allocate::Allocator;
use super::auth::{Authenticator, Tokens, UserInfo};
use super::authz::{Action, Authorizer};
use super::bootstrap;
use super::index::{Follower, Index};
use super::request::RequestInfo;
use super::reviews::Reviews;
use crate::api::status::ApiError;
use crate::config::NodeConfig;
use crate::controlplane::storage::{StorageError, Store};
use crate::pki::ServerPki;
use crate::rt::{Clock, Tasks};

/// The judges of requests.
pub struct Access {
    pub index: Arc<Index>,
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
    pub admission: Arc<Admission>,
    pub reviews: Reviews,
    pub tokens: Arc<Tokens>,
}

impl Access {
    /// Reads the policy objects that are stored and follows them until the tasks stop.
    pub async fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        pki: &ServerPki,
        config: &NodeConfig,
        tasks: &Tasks,
    ) -> Result<Self, StorageError> {
        let reserved = [bootstrap::api_cluster_ip(config), config.dns_ip];
        let allocator = Allocator::new(config.service_cidr, &reserved);
        let followers: Vec<Arc<dyn Follower>> = vec![allocator.clone()];
        let index = Index::start(store, followers, tasks).await?;
        let tokens = Arc::new(Tokens::new(&pki.service_account_key));
        let authorizer = Arc::new(Authorizer::new(index.clone()));
        let authenticator =
            Arc::new(Authenticator::new(index.clone(), tokens.clone(), authorizer.clone(), clock.clone()));
        let admission = Arc::new(Admission::new(index.clone(), allocator, clock.clone()));
        let reviews =
            Reviews::new(index.clone(), authenticator.clone(), authorizer.clone(), tokens.clone(), clock);
        Ok(Self { index, authenticator, authorizer, admission, reviews, tokens })
    }

    /// The first step of every request: its user, if they may do what it asks for; else 401 or 403.
    pub async fn pass(&self, parts: &Parts, info: &RequestInfo) -> Result<UserInfo, ApiError> {
        let user = self.authenticator.authenticate(parts).await?;
        let decision = self.authorizer.authorize(&user, info).await;
        match decision.allowed {
            true => Ok(user),
            false => Err(Authorizer::forbidden(&user, &Action::from(info), &decision)),
        }
    }
}
